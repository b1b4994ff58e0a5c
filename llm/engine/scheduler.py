"""Decides what goes into the next step: every sequence in decode, and some of the prompts' tokens.

Prompts are computed in chunks, so that nobody in decode waits long for a long prompt; `llm.engine.pace` says how many
of their tokens a step takes. Half is for the oldest prompt, the rest for those with the least to do: a long prompt must
not hold up the short ones behind it, nor they it. The module knows no tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from llm.engine.sequence import Sequence


class Chunk(NamedTuple):
    """The next `size` tokens of a prompt."""

    sequence: Sequence
    size: int


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
