"""Counts KV memory as a budget of token places, and who has reserved how many."""

from __future__ import annotations

from typing import Generic, TypeVar

Holder = TypeVar("Holder")


class TokenBudget(Generic[Holder]):
    """A budget whose reservations never exceed `tokens`. It knows neither their purpose nor where the places are."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.reserved = 0
        self._needs: dict[Holder, int] = {}

    def reserve(self, holder: Holder, need: int) -> bool:
        """Reserve `need` places in all for the holder. Return False, and change nothing, if they do not fit."""
        reserved = self.reserved - self._needs.get(holder, 0) + need
        if reserved > self.tokens:
            return False
        self.reserved, self._needs[holder] = reserved, need
        return True

    def release(self, holder: Holder) -> None:
        """Give back what the holder has reserved. Idempotent."""
        self.reserved -= self._needs.pop(holder, 0)
