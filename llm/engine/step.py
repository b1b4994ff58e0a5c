"""Computes continuous batching, one step at a time: schedule, forward, sample, emit.

A step computes one token for every sequence in decode and a chunk of the prompts in prefill, in one forward. The module
knows token ids, no text, and no threads: the caller decides when to step. A sequence is in the engine from `add` until
a Result with `finish`, or until `remove`; its memory is free then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from typing import Literal, NamedTuple

from torch import Tensor

from llm.engine import sampler
from llm.engine.kvcache import KVCache, Slot
from llm.engine.model_runner import Forward
from llm.engine.pace import Pace
from llm.engine.prefixes import OPERATOR, Prefixes
from llm.engine.scheduler import Scheduler
from llm.engine.sequence import Sequence

logger = logging.getLogger(__name__)

Sample = Callable[[Tensor, SequenceOf[sampler.RowSampling]], list[int | None]]


class Result(NamedTuple):
    """What a step did for one sequence: a further token, its end, or both (its last token). `stop` brings no token."""

    sequence: Sequence
    token: int | None = None
    finish: Literal["stop", "length", "error"] | None = None
    message: str | None = None


class Engine:
    """The engine of one thread. Each step computes `chunk_tokens` of prompts, or as many as the pace says.

    What running sequences need and what is kept of finished ones is `kv_tokens` at most; the caller sees to it that the
    needs alone are no more.
    """

    def __init__(
        self, forward: Forward, *, kv_tokens: int = 0, chunk_tokens: int | None = None, sample: Sample = sampler.sample
    ) -> None:
        self._forward = forward
        self._sample = sample
        self._kv_tokens = kv_tokens
        self._chunk_tokens = chunk_tokens
        self.pace = Pace()
        self.cache = KVCache(forward.layout, kv_tokens)
        self._prefixes = Prefixes()
        self._scheduler = Scheduler()

    @property
    def busy(self) -> bool:
        return bool(self._scheduler.prefilling or self._scheduler.decoding)

    def add(self, sequence: Sequence) -> None:
        """Take a sequence; its prefill begins with the next step. An exception concerns this sequence only."""
        sequence.check(self._forward.vocabulary)
        base, sequence.cached = self._prefixes.take(sequence.conversation, sequence.prompt)
        self._prefixes.fit(self._room() - sequence.need)
        sequence.slot = self.cache.open(len(sequence.prompt), base, sequence.cached)
        self._scheduler.add(sequence)

    def remove(self, sequence: Sequence, *, wipe: bool = False) -> None:
        """Forget a sequence and free its memory, whatever it is doing. Idempotent."""
        if self._scheduler.remove(sequence) and sequence.slot is not None:
            if not wipe:
                with _if_there_is_memory():
                    self._keep(sequence)
            self.cache.free(sequence.slot, wipe=wipe)
            sequence.slot = None

    def clear(self) -> None:
        """Forget all sequences and everything that is kept."""
        for sequence in self._scheduler.sequences:
            sequence.slot = None
        self._scheduler.clear()
        self.cache.clear()
        self._prefixes = Prefixes()

    @property
    def allocated_bytes(self) -> int:
        """Bytes of keys and values, the kept ones included."""
        return self.cache.allocated_bytes + self._prefixes.tokens * self.cache.layout.token_bytes

    def step(self) -> list[Result]:
        """Compute one forward for all sequences. An exception concerns every sequence: call `clear()` then."""
        began, failed = time.perf_counter(), self._settle()
        scheduler = self._scheduler
        budget = self._chunk_tokens or self.pace.prompt_tokens(len(scheduler.decoding), len(scheduler.prefilling))
        batch = scheduler.batch(self.cache.pools, budget)
        if not batch.tokens:
            return failed
        logits = self._forward(batch.tokens, batch.positions, batch.rows or [0], batch.pack)
        for sequence, size in (*((sequence, 1) for sequence in batch.decoding), *batch.chunks):
            sequence.advance(size)
        sampled = batch.decoding + [chunk.sequence for chunk in batch.chunks if not chunk.sequence.remaining]
        tokens = self._sample(logits, [sequence.sampling for sequence in sampled]) if sampled else []
        self.pace.saw(len(batch.decoding), len(batch.tokens) - len(batch.decoding), time.perf_counter() - began)
        return failed + [self._emit(sequence, token) for sequence, token in zip(sampled, tokens, strict=True)]

    def _emit(self, sequence: Sequence, token: int | None) -> Result:
        result = outcome(sequence, token)
        if result.finish is not None:
            self.remove(sequence, wipe=token is None)
        elif not sequence.in_decode:
            self._scheduler.prefilled(sequence)
        elif (failed := self._seat(sequence, self.cache.make_room)) is not None:
            return failed._replace(token=result.token)
        return result

    def _settle(self) -> list[Result]:
        """Give rows to the sequences whose prompt is computed; return a result for those for which there is no memory.

        This waits for the step after their first token, since a long prompt takes a while to move.
        """
        new = [sequence for sequence in self._scheduler.decoding if not sequence.in_decode]
        failed = [self._seat(sequence, self.cache.settle) for sequence in new]
        for sequence in new:
            if sequence.slot is not None:
                with _if_there_is_memory():
                    self._keep_common(sequence)
        return [result for result in failed if result is not None]

    def _seat(self, sequence: Sequence, give: Callable[[Slot], None]) -> Result | None:
        """Make sure of a row for the next token; if there is no memory, end the sequence and return its result."""
        try:
            give(sequence.seat)
        except (MemoryError, RuntimeError):
            logger.exception("No memory for a sequence of %d tokens", sequence.computed)
            self.remove(sequence)
            return Result(sequence, None, "error", "There is not enough memory for this conversation.")
        return None

    def _room(self) -> int:
        """Return the token places that no sequence needs."""
        return self._kv_tokens - sum(sequence.need for sequence in self._scheduler.sequences)

    def _keep(self, sequence: Sequence) -> None:
        """Keep a sequence for the next turn of its conversation; of an unfinished prefill, keep what it began with."""
        if not sequence.conversation:
            return
        room = self._room()
        if sequence.in_decode and sequence.computed <= room:
            self._prefixes.fit(room - sequence.computed)
            kept = self.cache.keep(sequence.seat, sequence.computed)
            self._prefixes.keep(sequence.conversation, sequence.stored, kept)
        elif not sequence.in_decode and sequence.cached > sequence.common and sequence.segment.base is not None:
            self._prefixes.keep(sequence.conversation, sequence.prompt[: sequence.cached], sequence.segment.base)
            self._prefixes.fit(room)

    def _keep_common(self, sequence: Sequence) -> None:
        """Keep the tokens with which the operator opens the prompt, for all prompts to come."""
        tokens = sequence.prompt[: sequence.common]
        if tokens and not self._prefixes.has(OPERATOR, tokens) and len(tokens) <= self._room():
            self._prefixes.fit(self._room() - len(tokens))
            self._prefixes.keep(OPERATOR, tokens, self.cache.keep(sequence.seat, len(tokens)))


@contextmanager
def _if_there_is_memory() -> Iterator[None]:
    """Log a lack of memory within the context. It is for work that only saves time later: no answer may fail for it."""
    try:
        yield
    except (MemoryError, RuntimeError):
        logger.exception("No memory to keep what was computed")


def outcome(sequence: Sequence, token: int | None) -> Result:
    """Append a sampled token to its sequence and return the result; None means that no token could be chosen."""
    if token is None:
        return Result(sequence, finish="error", message="The model's numbers went out of range.")
    if token in sequence.stop_tokens:
        return Result(sequence, finish="stop")
    sequence.append(token)
    finish: Literal["length"] | None = "length" if len(sequence.generated) == sequence.max_new_tokens else None
    return Result(sequence, token, finish)
