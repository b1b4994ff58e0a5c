"""Limits how long a turn waits for its place while nobody watches it. Knows a clock, and nothing of turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


def later(seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(seconds, callback)


class UnwatchedTimer:
    """Calls `give_up` once nobody has watched for `seconds` without a break, unless the wait is over before."""

    def __init__(self, seconds: float, give_up: Callable[[], None]) -> None:
        self._seconds = seconds
        self._give_up = give_up
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def watched(self, by_anyone: bool) -> None:
        """Take note that somebody began to watch, or that the last one left."""
        self._stop()
        if not by_anyone and not self._over:
            self._timer = later(self._seconds, self._give_up)

    def over(self) -> None:
        """Stop for good: the turn waits no longer."""
        self._over = True
        self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
