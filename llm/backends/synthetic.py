"""Generates a known text at a known rate, without a model, for tests, load tests and work on the page.

Every generation counts "1 2 3 ..." up to `LLM_SYNTHETIC_TOKENS`, a number a token, so that a gap or a repeat shows.
`/echo TEXT` as the visitor's last message answers TEXT, four characters a token; `/fail` ends with an error. All
generations step together, `LLM_SYNTHETIC_RATE` times a second, as those of the engine do. A cut-off answer as the last
message is continued where it ends. A word of the prompt counts as a token; the oldest are dropped if they do not fit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, NamedTuple

from llm.backends.base import Emit, End, ModelInfo, Piece
from llm.errors import ContextLengthExceeded
from llm.events import FinishReason, Usage
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import DEFAULTS
from llm.status import Progress
from llm.turns import in_turns, left_out

PROMPT_LENGTH = 8192
"""Tokens of the longest prompt."""


def synthetic_text(tokens: int) -> str:
    """Return the text of a generation of that many tokens."""
    return " ".join(str(number) for number in range(1, tokens + 1))


def words(*messages: ChatMessage) -> int:
    return sum(len(message.content.split()) for message in messages)


def question_and_partial(request: GenerationRequest) -> tuple[str, str]:
    """Return the visitor's last message, and the part of its answer that already exists."""
    if not request.messages:
        return "", ""
    last = request.messages[-1]
    if last.role != "assistant":
        return last.content, ""
    return next((each.content for each in reversed(request.messages) if each.role == "user"), ""), last.content


def without(partial: str, pieces: list[str]) -> list[str]:
    """Return the pieces of an answer that follow `partial`, if the answer begins with that."""
    text = "".join(pieces)
    if not partial or not text.startswith(partial):
        return pieces
    given, rest = len(partial), []
    for piece in pieces:
        rest.append(piece[given:])
        given = max(0, given - len(piece))
    return [piece for piece in rest if piece]


class SyntheticAnswer(NamedTuple):
    """The text, the end and the size of one generation."""

    pieces: list[str]
    reason: FinishReason
    prompt_tokens: int
    need: int
    left_out: int


class SyntheticJob:
    """One generation: the pieces still to come."""

    def __init__(self, answer: SyntheticAnswer, emit: Emit) -> None:
        self.cancelled = False
        self._pieces = answer.pieces
        self._reason = answer.reason
        self._prompt_tokens = answer.prompt_tokens
        self._left_out = answer.left_out
        self._emit = emit
        self._next = 0

    def cancel(self) -> None:
        self.cancelled = True

    def step(self) -> bool:
        """Emit one token, or the end. Return False after the end."""
        if self.cancelled or self._next == len(self._pieces):
            self.end("cancelled" if self.cancelled else self._reason)
            return False
        self._next += 1
        self._emit(Piece(self._pieces[self._next - 1], 1))
        return True

    def end(self, reason: FinishReason) -> None:
        usage = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self._next, left_out_turns=self._left_out)
        failed = reason == "error"
        message = "The synthetic backend was asked to fail." if failed else None
        self._emit(End(reason=reason, usage=usage, code="error" if failed else None, message=message))


class SyntheticBackend:
    """A backend that pretends: `tokens` for each answer, `rate` in tokens per second for each generation.

    `kv_tokens` is the memory it pretends to have; `auto` is enough for everyone. It pretends to sample, too.
    """

    def __init__(
        self,
        *,
        tokens: int,
        rate: float,
        max_new_tokens: int,
        places: int = 1,
        kv_tokens: int | Literal["auto"] = "auto",
    ) -> None:
        self._tokens = tokens
        self._period = 1 / rate
        self._max_new_tokens = max_new_tokens
        context = PROMPT_LENGTH + max_new_tokens
        self._info = ModelInfo(
            name="synthetic",
            context_length=context,
            mode="synthetic, no model",
            kv_tokens=places * context if kv_tokens == "auto" else kv_tokens,
            sampling=DEFAULTS,
        )
        self.steps = 0
        self._jobs: list[SyntheticJob] = []
        self._stepping: asyncio.Task[None] | None = None

    async def load(self, progress: Progress, died: Callable[[], None] = lambda: None) -> ModelInfo:
        return self._info

    def prepare(self, request: GenerationRequest) -> SyntheticAnswer:
        text, partial = question_and_partial(request)
        reason: FinishReason = "stop"
        if text.startswith("/echo "):
            echo = text.removeprefix("/echo ")
            pieces = [echo[at : at + 4] for at in range(0, len(echo), 4)]
        else:
            pieces = ["1", *(f" {number}" for number in range(2, self._tokens + 1))]
        pieces = without(partial, pieces)
        if text.strip() == "/fail":
            pieces, reason = pieces[:3], "error"
        limit = min(request.params.max_new_tokens or self._max_new_tokens, self._max_new_tokens)
        if len(pieces) > limit:
            pieces, reason = pieces[:limit], "length"
        prompt, left_out = self._fitted(request, limit)
        return SyntheticAnswer(pieces, reason, prompt, need=prompt + limit, left_out=left_out)

    def _fitted(self, request: GenerationRequest, limit: int) -> tuple[int, int]:
        """Return the tokens of the prompt, and how many turns are not in it."""
        system, turns = in_turns(request.messages)
        *old, last = [words(*turn) for turn in turns] or [0]
        others, room = words(*system) + last, self._info.largest_need - limit
        if others > room:
            raise ContextLengthExceeded(
                f"The prompt has {others} tokens and the answer may take {limit}; {self._info.largest_need} fit."
            )
        gone = left_out(old, others, room)
        return others + sum(old[gone:]), request.left_out + gone

    def start(self, prepared: SyntheticAnswer, emit: Emit) -> SyntheticJob:
        job = SyntheticJob(prepared, emit)
        self._jobs.append(job)
        if self._stepping is None:
            self._stepping = asyncio.create_task(self._step())
        return job

    async def close(self) -> None:
        if self._stepping is not None:
            self._stepping.cancel()
            self._stepping = None
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.end("cancelled")

    async def _step(self) -> None:
        """Step all jobs until none is left. The pace is kept against the clock, not by the length of the sleeps."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._jobs:
            due = max(due + self._period, loop.time())
            await asyncio.sleep(due - loop.time())
            self._jobs = [job for job in self._jobs if job.step()]
            self.steps += 1
        self._stepping = None
