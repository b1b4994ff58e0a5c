"""Decides who is next: every visitor has a line of their own, and the lines take turns.

Next is the visitor with the fewest answers running, then the one who was served the fewest tokens, then the one who has
waited longest. A visitor who becomes active starts at the smallest count of the active ones, so that neither an hour of
silence nor a fresh cookie earns a privilege. The idea is that of the virtual token counter
(https://arxiv.org/abs/2401.00588). The module knows no places and no clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Line(Generic[Item]):
    """The running and waiting requests of one visitor. `waiting` holds (arrival, item), oldest first."""

    __slots__ = ("running", "served", "waiting")

    def __init__(self, served: int) -> None:
        self.waiting: deque[tuple[int, Item]] = deque()
        self.running = 0
        self.served = served

    @property
    def active(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def key(self) -> tuple[int, int, int]:
        return self.running, self.served, self.waiting[0][0]


class FairQueue(Generic[Item]):
    """The lines of all active visitors. A visitor with nothing running and nothing waiting is forgotten."""

    def __init__(self) -> None:
        self._lines: dict[str, Line[Item]] = {}
        self._arrivals = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        """Return how many items wait."""
        return self._size

    def waiting(self, visitor: str) -> int:
        line = self._lines.get(visitor)
        return len(line.waiting) if line is not None else 0

    def running(self, visitor: str) -> int:
        line = self._lines.get(visitor)
        return line.running if line is not None else 0

    def push(self, visitor: str, item: Item) -> None:
        self._line(visitor).waiting.append((next(self._arrivals), item))
        self._size += 1

    def remove(self, visitor: str, item: Item) -> None:
        """Remove an item that no longer waits. Raises KeyError if it is not in the queue."""
        line = self._lines[visitor]
        kept = deque(entry for entry in line.waiting if entry[1] is not item)
        if len(kept) == len(line.waiting):
            raise KeyError(item)
        line.waiting = kept
        self._size -= 1
        self._forget_idle(visitor)

    def ran(self, visitor: str) -> None:
        """Note that an item of this visitor that was popped no longer runs."""
        self._lines[visitor].running -= 1
        self._forget_idle(visitor)

    def charge(self, visitor: str, tokens: int) -> None:
        """Add tokens of a prompt or an answer to what the visitor was served."""
        if (line := self._lines.get(visitor)) is not None:
            line.served += tokens

    def pop(self, may_run: Callable[[int], bool]) -> Item | None:
        """Remove and return the next item whose visitor `may_run` one more; it counts as running from now on."""
        ready = ((*line.key, visitor) for visitor, line in self._lines.items() if line.waiting)
        for *_, visitor in sorted(ready):
            line = self._lines[visitor]
            if may_run(line.running):
                _, item = line.waiting.popleft()
                self._size -= 1
                line.running += 1
                return item
        return None

    def order(self) -> Iterator[Item]:
        """Yield all waiting items in the order in which they are taken if nobody comes, ends or is served meanwhile."""
        heap = [(*line.key, visitor, 0) for visitor, line in self._lines.items() if line.waiting]
        heapq.heapify(heap)
        while heap:
            running, served, _, visitor, place = heapq.heappop(heap)
            waiting = self._lines[visitor].waiting
            yield waiting[place][1]
            if place + 1 < len(waiting):
                heapq.heappush(heap, (running + 1, served, waiting[place + 1][0], visitor, place + 1))

    def _line(self, visitor: str) -> Line[Item]:
        if visitor not in self._lines:
            self._lines[visitor] = Line(min((line.served for line in self._lines.values()), default=0))
        return self._lines[visitor]

    def _forget_idle(self, visitor: str) -> None:
        if not self._lines[visitor].active:
            del self._lines[visitor]
