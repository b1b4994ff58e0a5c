"""Who is next: every visitor has a line of their own, and the lines take turns.

Next is the visitor with the fewest answers running, then the one who has been served the fewest tokens, then the one
who has waited longest. A visitor who becomes active starts at the smallest count of those who are: neither does an hour
of silence earn a privilege, nor a fresh cookie. The idea is that of the virtual token counter
(https://arxiv.org/abs/2401.00588). Knows no places and no clock.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Line(Generic[Item]):
    """What one visitor has running and waiting. `waiting` holds (arrival, item), oldest first."""

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
    """The lines of all active visitors; those who have nothing running and nothing waiting are forgotten."""

    def __init__(self) -> None:
        self._lines: dict[str, Line[Item]] = {}
        self._arrivals = itertools.count()
        self._size = 0

    def __len__(self) -> int:
        """How many wait."""
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
        """Take out what does not wait any longer. Raises KeyError if it is not there."""
        line = self._lines[visitor]
        kept = deque(entry for entry in line.waiting if entry[1] is not item)
        if len(kept) == len(line.waiting):
            raise KeyError(item)
        line.waiting = kept
        self._size -= 1
        self._forget_idle(visitor)

    def ran(self, visitor: str) -> None:
        """One that was popped runs no longer."""
        self._lines[visitor].running -= 1
        self._forget_idle(visitor)

    def charge(self, visitor: str, tokens: int) -> None:
        """The visitor was served so many tokens, of a prompt or of an answer."""
        if (line := self._lines.get(visitor)) is not None:
            line.served += tokens

    def pop(self, may_run: Callable[[int], bool]) -> Item | None:
        """The next whose visitor `may_run` one more beside those running: taken out, and counted as running."""
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
        """All who wait, in the order in which they would be taken if nobody came, ended or was served meanwhile."""
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
