"""Defines what the controller needs of whatever generates: load, prepare, start, cancel.

A backend knows no queue, no limits and no visitors; it starts what it is told to start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from llm.events import FinishReason, Usage
from llm.request import GenerationRequest
from llm.sampling import SamplingParams
from llm.status import Progress


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the rest of the site may know of a loaded model; `mode` is engine, device and number type in a few words.

    All running requests may hold `kv_tokens` tokens together; one never needs more than the smaller of that and
    `context_length`. `places` is how many answers can be generated at once, if that is not for the operator to say.
    `longest_step` are seconds that a step may take, however few LLM_STALL_SECONDS are. `sampling` holds if a request
    says nothing.
    """

    name: str
    context_length: int
    mode: str
    kv_tokens: int
    places: int | None = None
    longest_step: float = 0.0
    sampling: SamplingParams = SamplingParams()

    @property
    def largest_need(self) -> int:
        return min(self.context_length, self.kv_tokens)


class Piece(msgspec.Struct, frozen=True):
    """Text that is ready to be shown (empty while a token's text is held back) and the number of its tokens."""

    text: str
    tokens: int


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a generation: the backend has left the sequence, its memory is free, no Piece follows."""

    reason: FinishReason
    usage: Usage
    code: str | None = None
    message: str | None = None


class Prepared(Protocol):
    """A request that is ready to start; all but its need concerns the backend only."""

    @property
    def need(self) -> int:
        """Token places of KV memory that it may take: its prompt and the longest answer."""


Emit = Callable[[Piece | End], None]
"""It never raises."""


class Job(Protocol):
    """A generation that was started."""

    def cancel(self) -> None:
        """Idempotent, returns at once. One End follows: `cancelled`, or another reason that was on its way."""


class Backend(Protocol):
    """What generates. `prepare` is called in worker threads, several at once; the other methods on one event loop."""

    async def load(self, progress: Progress, died: Callable[[], None] = lambda: None) -> ModelInfo:
        """Make everything ready. Raises ConfigurationError if the operator has to change something.

        `died` is called on the loop if the backend will never generate again though nobody closed it. All generations
        have had their End by then.
        """

    def prepare(self, request: GenerationRequest) -> Prepared:
        """Render and tokenise the request, and return the argument of `start`. Blocks. Raises RequestError."""

    def start(self, prepared: Any, emit: Emit) -> Job:
        """Begin to generate. `emit` gets, on the loop, any number of Piece, then exactly one End, whatever happens.

        The caller sees to it that the needs of all that run fit `ModelInfo.kv_tokens`; what the backend keeps beside
        them, so as to compute less, makes room for them.
        """

    @property
    def steps(self) -> int:
        """A count that grows with every step, whether it brings text or not, as long as a job is under way."""

    async def close(self) -> None:
        """End all running generations (each with its End) and free everything. Idempotent."""
