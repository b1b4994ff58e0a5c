"""Defines what callers see of load control, whether it runs in this process or behind a socket.

`GenerationController` is the implementation, `ServiceClient` reaches it from any other process; both are used alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from llm.event_stream import EventStream
from llm.events import Stats, Status
from llm.request import GenerationRequest
from llm.sampling import SamplingParams


class Ticket(Protocol):
    """A place that was given, running or in the queue. It is lost unless it is run or cancelled within 10 s."""

    def run(self, request: GenerationRequest) -> EventStream:
        """Use the place and return the events of the request. May be called once.

        The place is free again when the engine has left the sequence. Problems of the request (a parameter out of
        range, a prompt that is too long) arrive as its `Finished`.
        """

    def cancel(self) -> None:
        """End the request wherever it is: not run yet, queued, in prefill or in decode. Idempotent, returns at once.

        A stream that was handed out ends with `Finished`, whose reason is `cancelled` unless it was ending anyway.
        """


class Controller(Protocol):
    """Admission to the model. A controller belongs to one event loop."""

    @property
    def status(self) -> Status:
        """The last known state of the model."""

    @property
    def model(self) -> str:
        """The model's name for people; empty until it is known."""

    @property
    def defaults(self) -> SamplingParams:
        """The parameters that hold where a request gives none; empty until they are known."""

    def on_status(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        """Call `callback` on the loop on each change of `status`. Return a function that ends this."""

    async def admit(self, visitor: str) -> Ticket:
        """Return a place for `visitor` (any stable key), which is counted at once. Raises Overloaded or Unavailable."""

    async def stats(self) -> Stats:
        """Return load, limits and totals. Raises Unavailable."""

    async def aclose(self) -> None:
        """Cancel everything that runs, so that every stream ends, and free all resources."""
