"""What callers see of load control, whether it runs in this process or behind a socket.

`GenerationController` is the thing itself, `ServiceClient` reaches it from any other process; both are used alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm.events import Stats, Status
from llm.request import GenerationRequest
from llm.sampling import SamplingParams
from llm.stream import EventStream


class Ticket(Protocol):
    """A place that was given: running or in the queue. Run it within 10 s or release it; it is lost after that."""

    def run(self, request: GenerationRequest) -> EventStream:
        """Use the place. Once only; the place is free again when the engine has left the sequence.

        Problems of the request (a parameter out of range, a prompt that is too long) arrive as its `Finished`.
        """

    def cancel(self) -> None:
        """End it wherever it is: not run yet, queued, in prefill, in decode. Idempotent, returns at once.

        A stream that was handed out ends with `Finished`, whose reason is `cancelled` unless it was ending anyway.
        """


class Controller(Protocol):
    """Admission to the model. Belongs to one event loop."""

    @property
    def status(self) -> Status:
        """How the model is, as far as is known."""

    @property
    def model(self) -> str:
        """The model's name for people; empty until it is known."""

    @property
    def defaults(self) -> SamplingParams:
        """What holds where a request says nothing: the model's own and the operator's; empty until it is known."""

    def on_status(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        """Call `callback` on each change of `status`, on the loop; what comes back ends that."""

    async def admit(self, visitor: str) -> Ticket:
        """A place for `visitor` (any stable key), counted at once. Raises Overloaded or Unavailable."""

    async def stats(self) -> Stats:
        """Load, limits and totals. Raises Unavailable."""

    async def aclose(self) -> None:
        """Give everything back: what runs is cancelled, its stream ends."""
