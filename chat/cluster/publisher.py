"""Sends the turns of this process to other processes that watch them: to each, one message with all that is new.

A message a token would cost more than the token (Redis takes under a thousand a second), so news waits for its
companions, up to GAP. A process that watches says so again and again; one that does not is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from uuid import UUID

from chat.cluster.bus import Bus
from chat.cluster.messages import News, Part, Subscribe, Unsubscribe
from chat.errors import Unreachable
from chat.streams.transcript import Transcript

GAP = 0.05
"""Seconds between two messages to the same process."""

BACKOFF = 0.5
"""Seconds until the next one after the bus has failed."""

LEASE = 25.0
"""Seconds a subscription lasts: two of its renewals may be lost."""

MAX_CHARS = 200_000
"""Characters of text in one message; more follows in the next."""

LAST_SECONDS = 1.0
"""How long the last news may take when this process ends."""


class Cursor:
    """Marks how far a process has been told of a transcript."""

    def __init__(self, transcript: Transcript, next_seq: int) -> None:
        self.transcript = transcript
        self.next = next_seq
        self._told: tuple[object, ...] | None = None
        self.lease: asyncio.TimerHandle | None = None

    def part(self) -> Part:
        """Return everything from `next` on, or as much of it as fits."""
        source = self.transcript
        chars, stop = 0, self.next
        while stop < len(source.deltas) and chars < MAX_CHARS:
            chars += len(source.deltas[stop])
            stop += 1
        whole = stop == len(source.deltas)
        return Part(
            generation=source.generation,
            first=self.next,
            deltas=source.deltas[self.next : stop],
            given=source.given,
            queued=source.queued,
            started=source.started,
            end=source.end if whole else None,
        )

    def restart(self, next_seq: int) -> None:
        """Go on from `next_seq`, as it was asked for; an answer is due, even if there is nothing new."""
        self.next = min(next_seq, len(self.transcript.deltas))
        self._told = None

    def lacks(self, part: Part) -> bool:
        """Tell whether there is something in a part that was not told yet."""
        return bool(part.deltas) or self._told != _standing(part)

    def told(self, part: Part) -> None:
        if self.next == part.first:  # else it was asked for again meanwhile
            self.next += len(part.deltas)
            self._told = _standing(part)


def _standing(part: Part) -> tuple[object, ...]:
    return part.queued, part.started, part.end


class Subscriber:
    """One other process and what it watches here. `gone` is called when it watches nothing any more."""

    def __init__(self, process: UUID, bus: Bus, gone: Callable[[UUID], None]) -> None:
        self._process = process
        self._bus = bus
        self._gone = gone
        self._cursors: dict[UUID, Cursor] = {}
        self._news = asyncio.Event()
        self._telling = asyncio.create_task(self._tell_on())

    def set(self) -> None:
        """Take note that something happened in a transcript (see `Reader`)."""
        self._news.set()

    def watch(self, transcript: Transcript, next_seq: int) -> None:
        """Send it from `next_seq` on, whatever was told before: it asks because that may have been lost."""
        cursor = self._cursors.get(transcript.generation)
        if cursor is None:
            cursor = self._cursors[transcript.generation] = Cursor(transcript, next_seq)
            transcript.join(self)
        cursor.restart(next_seq)
        if cursor.lease is not None:
            cursor.lease.cancel()
        cursor.lease = asyncio.get_running_loop().call_later(LEASE, self.leave, transcript.generation)
        self._news.set()

    def leave(self, generation: UUID) -> None:
        cursor = self._cursors.pop(generation, None)
        if cursor is not None:
            cursor.transcript.leave(self)
            if cursor.lease is not None:
                cursor.lease.cancel()
        if not self._cursors:
            self._telling.cancel()
            self._gone(self._process)

    async def aclose(self) -> None:
        """Send what is left to send, once, and end."""
        self._telling.cancel()
        await asyncio.gather(self._telling, return_exceptions=True)
        with contextlib.suppress(TimeoutError, Unreachable):
            async with asyncio.timeout(LAST_SECONDS):
                while await self._tell():
                    pass
        for generation in list(self._cursors):
            self.leave(generation)

    async def _tell_on(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            wait = GAP
            try:
                more = await self._tell()
            except Unreachable:
                more, wait = True, BACKOFF
            if more:
                self._news.set()
            await asyncio.sleep(wait)

    async def _tell(self) -> bool:
        """Send one message, if anything is due; return whether more is. Raises Unreachable: it is still due then."""
        told = list(self._due())
        if not told:
            return False
        await self._bus.send(self._process, News([part for _, part in told]))
        for cursor, part in told:
            cursor.told(part)
            if part.end is not None and self._cursors.get(part.generation) is cursor:
                self.leave(part.generation)
        return any(True for _ in self._due())

    def _due(self) -> Iterator[tuple[Cursor, Part]]:
        chars = 0
        for cursor in self._cursors.values():
            if chars > MAX_CHARS:
                return
            part = cursor.part()
            if cursor.lacks(part):
                chars += sum(map(len, part.deltas))
                yield cursor, part


class Publisher:
    """Keeps the subscribers. `find` gives the transcript of a turn of this process. Belongs to one event loop."""

    def __init__(self, bus: Bus, find: Callable[[UUID], Transcript | None]) -> None:
        self._bus = bus
        self._find = find
        self._subscribers: dict[UUID, Subscriber] = {}

    def subscribe(self, message: Subscribe) -> None:
        """Say nothing of a generation that is not here; silence makes the asker look at its row."""
        transcript = self._find(message.generation)
        if transcript is None:
            return
        if message.process not in self._subscribers:
            self._subscribers[message.process] = Subscriber(message.process, self._bus, self._forget)
        self._subscribers[message.process].watch(transcript, message.next_seq)

    def unsubscribe(self, message: Unsubscribe) -> None:
        if subscriber := self._subscribers.get(message.process):
            subscriber.leave(message.generation)

    async def aclose(self) -> None:
        await asyncio.gather(*(subscriber.aclose() for subscriber in list(self._subscribers.values())))

    def _forget(self, process: UUID) -> None:
        self._subscribers.pop(process, None)
