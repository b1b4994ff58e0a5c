"""Forecasts how long the waiting requests will wait, from the service times seen so far."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

SMOOTHING = 0.1
"""Weight of the newest service time; the last ten or so decide the mean."""


class ServiceTime:
    """The moving average of how long a running place is held, in seconds; None until one was given back."""

    def __init__(self) -> None:
        self.mean: float | None = None
        self._count = 0

    def record(self, seconds: float) -> None:
        self._count += 1
        weight = max(SMOOTHING, 1 / self._count)  # a plain mean at first, so that one odd start does not linger
        self.mean = seconds if self.mean is None else self.mean + weight * (seconds - self.mean)


def expected_waits(held: Sequence[float], mean: float, waiting: int) -> list[float]:
    """Return the seconds until each of `waiting` requests, in their order, gets a place.

    `held` is how long each of the taken places has been held. A generation that has outlasted the mean is expected to
    end in a tenth of it. The forecast knows nothing of who may overtake, nor of answers that will be unusually long.
    """
    free = [max(mean - seconds, mean / 10) for seconds in held]
    heapq.heapify(free)
    waits = []
    for _ in range(waiting):
        at = heapq.heappop(free)
        waits.append(at)
        heapq.heappush(free, at + mean)
    return waits
