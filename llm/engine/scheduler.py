"""Puts the batch of a step together: a token of every sequence in decode, and some of the prompts' tokens.

Prompts are computed in chunks, so that nobody in decode waits long for a long prompt; `llm.engine.pace` says how many
of their tokens a step takes. Half is for the oldest prompt, the rest for those with the least to do: a long prompt must
not hold up the short ones behind it, nor they it. The module computes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

from llm.engine.attention import packed
from llm.engine.kvcache import Pool
from llm.engine.sequence import Sequence


class Chunk(NamedTuple):
    """The next `size` tokens of a prompt."""

    sequence: Sequence
    size: int


class Batch(NamedTuple):
    """What one step computes: sequences in decode, in the order of the pools' rows, then chunks of prompts.

    `rows` are the places among `tokens` whose logits are sampled from.
    """

    decoding: list[Sequence]
    chunks: list[Chunk]
    tokens: list[int]
    positions: list[int]
    rows: list[int]
    pack: packed.Pack

    @property
    def sampled(self) -> list[Sequence]:
        """The sequences that get a token, in the order of `rows`."""
        return self.decoding + [sequence for sequence, size in self.chunks if size == sequence.remaining]


class Scheduler:
    def __init__(self) -> None:
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []

    @property
    def sequences(self) -> list[Sequence]:
        return self.prefilling + self.decoding

    def add(self, sequence: Sequence) -> None:
        self.prefilling.append(sequence)

    def prefilled(self, sequence: Sequence) -> None:
        self.prefilling.remove(sequence)
        self.decoding.append(sequence)

    def remove(self, sequence: Sequence) -> bool:
        """Remove a sequence. Return False if it is not here (any more)."""
        for group in (self.prefilling, self.decoding):
            if sequence in group:
                group.remove(sequence)
                return True
        return False

    def clear(self) -> None:
        self.prefilling.clear()
        self.decoding.clear()

    def in_rows(self, pools: SequenceOf[Pool]) -> list[Sequence]:
        """Return the sequences in these pools, in the order of their rows."""
        by_slot = {sequence.slot: sequence for sequence in self.decoding}
        return [by_slot[slot] for pool in pools for slot in pool.slots]

    def batch(self, pools: SequenceOf[Pool], chunks: list[Chunk]) -> Batch:
        """Return the batch of all rows of these pools and of these chunks."""
        decoding = self.in_rows(pools)
        tokens = [sequence.last_token for sequence in decoding]
        positions = [sequence.computed for sequence in decoding]
        rows = list(range(len(decoding)))
        parts: list[packed.Part] = [packed.PoolRows(pool) for pool in pools]
        for sequence, size in chunks:
            start = sequence.computed
            tokens += sequence.prompt[start : start + size]
            positions += range(start, start + size)
            parts.append(packed.Chunk(sequence.segment, start, size))
            if size == sequence.remaining:
                rows.append(len(tokens) - 1)
        return Batch(decoding, chunks, tokens, positions, rows, packed.Pack(parts))

    def chunks(self, budget: int) -> list[Chunk]:
        """Return whose prompt goes on in this step, and how far: `budget` tokens in all."""
        if not self.prefilling or not budget:
            return []
        oldest, *others = self.prefilling
        first = min(oldest.remaining, max(1, budget // 2) if others else budget)
        budget -= first
        chunks = []
        for sequence in sorted(others, key=lambda sequence: sequence.remaining):
            if size := min(sequence.remaining, budget):
                chunks.append(Chunk(sequence, size))
                budget -= size
        return [Chunk(oldest, min(oldest.remaining, first + budget)), *chunks]
