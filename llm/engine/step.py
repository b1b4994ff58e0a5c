"""Computes continuous batching, one step at a time: schedule, forward, sample, emit.

A step computes one token for every sequence in decode and a chunk of the prompts in prefill, in one forward. What fails
there is computed again in parts, so that only the sequences at fault end. The module knows token ids, no text, and no
threads: the caller decides when to step. A sequence is in the engine from `add` until a Result with `finish`, or until
`remove`; its memory is free then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from llm.engine import sampler
from llm.engine.kvcache import KVCache, Pool, Slot
from llm.engine.model_runner import Forward
from llm.engine.pace import Pace
from llm.engine.prefixes import OPERATOR, Prefixes
from llm.engine.scheduler import Batch, Chunk, Scheduler
from llm.engine.sequence import Sequence

logger = logging.getLogger(__name__)

FAILED = "The model could not go on with this answer."
NO_MEMORY = "There is not enough memory for this conversation."

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
    needs alone are no more. With `strict` whatever fails in a step is raised, as a trial of a model needs it.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        kv_tokens: int = 0,
        chunk_tokens: int | None = None,
        sample: Sample = sampler.sample,
        strict: bool = False,
    ) -> None:
        self._forward = forward
        self._sample = sample
        self._strict = strict
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
                with _to_save_time():
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
        pools, chunks = self.cache.pools, scheduler.chunks(budget)
        if not pools and not chunks:
            return failed
        try:
            batch = scheduler.batch(pools, chunks)
            tokens = self._tokens(self._logits(batch), batch.sampled)
        except torch.AcceleratorError:  # no further step can work in this process
            raise
        except Exception:
            if self._strict:
                raise
            logger.exception("A step failed, and is computed in parts")
            return failed + self._in_parts(pools, chunks)
        with _to_save_time():
            self.pace.saw(len(batch.decoding), len(batch.tokens) - len(batch.decoding), time.perf_counter() - began)
        return failed + self._advanced(batch, tokens)

    def _logits(self, batch: Batch) -> Tensor:
        """Compute a batch and return the logits of its `sampled`. It may be computed again: nothing has advanced."""
        return self._forward(batch.tokens, batch.positions, batch.rows or [0], batch.pack)

    def _tokens(self, logits: Tensor, sampled: SequenceOf[Sequence]) -> list[int | None]:
        return self._sample(logits, [sequence.sampling for sequence in sampled]) if sampled else []

    def _in_parts(self, pools: SequenceOf[Pool], chunks: SequenceOf[Chunk]) -> list[Result]:
        """Compute each pool and each chunk by itself, and choose each token by itself; end what fails again."""
        computed: list[tuple[Batch, list[int | None]]] = []
        lost: list[Sequence] = []
        for one_pool, one_chunk in (*(([pool], []) for pool in pools), *(([], [chunk]) for chunk in chunks)):
            try:
                part = self._scheduler.batch(one_pool, one_chunk)
                logits = self._logits(part)
            except Exception:
                logger.exception("Some of the sequences cannot go on")
                lost += self._scheduler.in_rows(one_pool) + [chunk.sequence for chunk in one_chunk]
            else:
                computed.append((part, [self._token(logits, i, one) for i, one in enumerate(part.sampled)]))
        failed = [self._failed(sequence) for sequence in lost]
        return failed + [result for part, tokens in computed for result in self._advanced(part, tokens)]

    def _token(self, logits: Tensor, row: int, sequence: Sequence) -> int | None:
        """Return the token of one row; None if it cannot be chosen, for whatever reason."""
        try:
            (token,) = self._tokens(logits[row : row + 1], [sequence])
        except Exception:
            logger.exception("No token could be chosen for one of the sequences")
            return None
        return token

    def _advanced(self, batch: Batch, tokens: SequenceOf[int | None]) -> list[Result]:
        """Note that a batch is computed, and which tokens it brought."""
        sampled = batch.sampled
        for sequence, size in (*((sequence, 1) for sequence in batch.decoding), *batch.chunks):
            sequence.advance(size)
        return [self._emit(sequence, token) for sequence, token in zip(sampled, tokens, strict=True)]

    def _emit(self, sequence: Sequence, token: int | None) -> Result:
        try:
            result = outcome(sequence, token)
        except Exception:
            logger.exception("A token could not be taken")
            return self._failed(sequence)
        if result.finish is not None:
            self.remove(sequence, wipe=token is None)
        elif not sequence.in_decode:
            self._scheduler.prefilled(sequence)
        elif (failed := self._seat(sequence, self.cache.make_room)) is not None:
            return failed._replace(token=result.token)
        return result

    def _failed(self, sequence: Sequence, message: str = FAILED) -> Result:
        """End a sequence whose numbers may be anything."""
        self.remove(sequence, wipe=True)
        return Result(sequence, None, "error", message)

    def _settle(self) -> list[Result]:
        """Give rows to the sequences whose prompt is computed; return a result for those for which there is no memory.

        This waits for the step after their first token, since a long prompt takes a while to move.
        """
        with _to_save_time():
            self.cache.shrink()
        new = [sequence for sequence in self._scheduler.decoding if not sequence.in_decode]
        failed = [self._seat(sequence, self.cache.settle) for sequence in new]
        for sequence in new:
            if sequence.slot is not None:
                with _to_save_time():
                    self._keep_common(sequence)
        return [result for result in failed if result is not None]

    def _seat(self, sequence: Sequence, give: Callable[[Slot], None]) -> Result | None:
        """Make sure of a row for the next token; if there is no memory, end the sequence and return its result."""
        try:
            give(sequence.seat)
        except Exception:
            logger.exception("No memory for a sequence of %d tokens", sequence.computed)
            return self._failed(sequence, NO_MEMORY)
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
def _to_save_time() -> Iterator[None]:
    """Log what fails within the context. It is for work that only saves time, or memory, later: no answer fails for it.

    That is above all a lack of memory.
    """
    try:
        yield
    except Exception:
        logger.exception("What would save time later could not be done")


def outcome(sequence: Sequence, token: int | None) -> Result:
    """Append a sampled token to its sequence and return the result; None means that no token could be chosen."""
    if token is None:
        return Result(sequence, finish="error", message="The model's numbers went out of range.")
    if token in sequence.stop_tokens:
        return Result(sequence, finish="stop")
    sequence.append(token)
    finish: Literal["length"] | None = "length" if len(sequence.generated) == sequence.max_new_tokens else None
    return Result(sequence, token, finish)
