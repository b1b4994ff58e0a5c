"""KV memory as a budget of token places: who has reserved how many."""

from __future__ import annotations

from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class TokenBudget(Generic[Holder]):
    """What is reserved never exceeds `tokens`. Knows nothing of why, nor of where the places are."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.reserved = 0
        self._needs: dict[Holder, int] = {}

    def reserve(self, holder: Holder, need: int) -> bool:
        """Reserve `need` places, instead of what the holder has; False, and nothing changes, where they do not fit."""
        reserved = self.reserved - self._needs.get(holder, 0) + need
        if reserved > self.tokens:
            return False
        self.reserved, self._needs[holder] = reserved, need
        return True

    def release(self, holder: Holder) -> None:
        """Idempotent."""
        self.reserved -= self._needs.pop(holder, 0)
