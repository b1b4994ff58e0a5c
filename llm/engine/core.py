"""Continuous batching, one step at a time: schedule, forward, sample, emit.

A step computes one token for every sequence in decode and a chunk of the prompts in prefill, in one forward. Knows
token ids, no text; no threads: whoever calls decides when. A sequence is in the engine from `add` until a Result with
`finish`, or until `remove`; its memory is free then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from typing import Literal, NamedTuple

from torch import Tensor

from llm.engine import attention, sampler
from llm.engine.kvcache import KVCache
from llm.engine.model import Forward
from llm.engine.scheduler import Chunk, Scheduler
from llm.engine.sequence import Sequence

logger = logging.getLogger(__name__)

CHUNK_TOKENS = 128
"""Prompt tokens in one step: few enough that those in decode hardly notice, enough to keep the cores busy."""

Sample = Callable[[Tensor, SequenceOf[sampler.RowSampling]], list[int | None]]


class Result(NamedTuple):
    """What a step did for one sequence: a further token, its end, or both (its last token). `stop` brings no token."""

    sequence: Sequence
    token: int | None = None
    finish: Literal["stop", "length", "error"] | None = None
    message: str | None = None


class Engine:
    """Belongs to one thread."""

    def __init__(self, forward: Forward, *, chunk_tokens: int = CHUNK_TOKENS, sample: Sample = sampler.sample) -> None:
        self._forward = forward
        self._sample = sample
        self.cache = KVCache(forward.layout)
        self._scheduler = Scheduler(chunk_tokens)

    @property
    def busy(self) -> bool:
        return bool(self._scheduler.prefilling or self._scheduler.decoding)

    def add(self, sequence: Sequence) -> None:
        """Its prefill begins with the next step. What this raises concerns this sequence only."""
        if not sequence.prompt or not all(0 <= token < self._forward.vocabulary for token in sequence.prompt):
            raise ValueError("a prompt is one token or more of the model's vocabulary")
        sequence.slot = self.cache.open(len(sequence.prompt))
        self._scheduler.add(sequence)

    def remove(self, sequence: Sequence, *, wipe: bool = False) -> None:
        """Forget it and free its memory, whatever it is doing. Idempotent."""
        if self._scheduler.remove(sequence) and sequence.slot is not None:
            self.cache.free(sequence.slot, wipe=wipe)
            sequence.slot = None

    def clear(self) -> None:
        """Forget all sequences."""
        for sequence in self._scheduler.sequences:
            sequence.slot = None
        self._scheduler.clear()
        self.cache.clear()

    def step(self) -> list[Result]:
        """One forward for all. What it raises concerns every sequence: `clear()` then."""
        decoding, chunks = self._rows_in_order(), self._scheduler.chunks()
        if not (decoding or chunks):
            return []
        logits = self._compute(decoding, chunks)
        for sequence, size in (*((sequence, 1) for sequence in decoding), *chunks):
            sequence.advance(size)
        sampled = decoding + [chunk.sequence for chunk in chunks if not chunk.sequence.remaining]
        tokens = self._sample(logits, [sequence.sampling for sequence in sampled]) if sampled else []
        return [self._emit(sequence, token) for sequence, token in zip(sampled, tokens, strict=True)]

    def _rows_in_order(self) -> list[Sequence]:
        """Sequences in decode, in the order of the pools' rows."""
        by_slot = {sequence.slot: sequence for sequence in self._scheduler.decoding}
        return [by_slot[slot] for pool in self.cache.pools for slot in pool.slots]

    def _compute(self, decoding: SequenceOf[Sequence], chunks: SequenceOf[Chunk]) -> Tensor:
        tokens = [sequence.last_token for sequence in decoding]
        positions = [sequence.computed for sequence in decoding]
        rows = list(range(len(decoding)))
        parts: list[attention.Part] = [attention.PoolRows(pool) for pool in self.cache.pools]
        for sequence, size in chunks:
            start = sequence.computed
            tokens += sequence.prompt[start : start + size]
            positions += range(start, start + size)
            parts.append(attention.Chunk(sequence.segment, start, size))
            if size == sequence.remaining:
                rows.append(len(tokens) - 1)
        return self._forward(tokens, positions, rows or [0], attention.Pack(parts))

    def _emit(self, sequence: Sequence, token: int | None) -> Result:
        if token is None:
            self.remove(sequence, wipe=True)
            return Result(sequence, finish="error", message="The model's numbers went out of range.")
        if token in sequence.stop_tokens:
            self.remove(sequence)
            return Result(sequence, finish="stop")
        sequence.append(token)
        if len(sequence.generated) == sequence.max_new_tokens:
            self.remove(sequence)
            return Result(sequence, token, "length")
        return self._seat(sequence, token)

    def _seat(self, sequence: Sequence, token: int) -> Result:
        """Make sure of a row for the next token."""
        try:
            if sequence.in_decode:
                self.cache.make_room(sequence.seat)
            else:
                self.cache.settle(sequence.seat)
                self._scheduler.prefilled(sequence)
        except (MemoryError, RuntimeError):
            logger.exception("No memory for a sequence of %d tokens", sequence.computed)
            self.remove(sequence)
            return Result(sequence, token, "error", "There is not enough memory for this conversation.")
        return Result(sequence, token)
