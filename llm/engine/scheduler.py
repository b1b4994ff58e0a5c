"""What goes into the next step: every sequence in decode, and some of the prompts' tokens.

Prompts are computed in chunks, at most `chunk_tokens` in one step, so that nobody in decode waits long for a long
prompt. The oldest comes first, but takes no more than half while others wait: a long prompt must not hold up the
short ones behind it either. Knows no tensors.
"""

from __future__ import annotations

from typing import NamedTuple

from llm.engine.sequence import Sequence


class Chunk(NamedTuple):
    """The next `size` tokens of a prompt."""

    sequence: Sequence
    size: int


class Scheduler:
    def __init__(self, chunk_tokens: int) -> None:
        self.prefilling: list[Sequence] = []
        self.decoding: list[Sequence] = []
        self._chunk_tokens = chunk_tokens

    @property
    def sequences(self) -> list[Sequence]:
        return self.prefilling + self.decoding

    def add(self, sequence: Sequence) -> None:
        self.prefilling.append(sequence)

    def prefilled(self, sequence: Sequence) -> None:
        self.prefilling.remove(sequence)
        self.decoding.append(sequence)

    def remove(self, sequence: Sequence) -> bool:
        """False if it is not here (any more)."""
        for group in (self.prefilling, self.decoding):
            if sequence in group:
                group.remove(sequence)
                return True
        return False

    def clear(self) -> None:
        self.prefilling.clear()
        self.decoding.clear()

    def chunks(self) -> list[Chunk]:
        """Whose prompt goes on in this step, and how far."""
        chunks, budget = [], self._chunk_tokens
        for waiting, sequence in zip(range(len(self.prefilling) - 1, -1, -1), self.prefilling, strict=True):
            size = min(sequence.remaining, max(1, budget // 2) if waiting else budget)
            chunks.append(Chunk(sequence, size))
            budget -= size
            if not budget:
                break
        return chunks
