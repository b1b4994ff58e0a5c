"""Follows turns that run in other processes.

A RemoteTranscript is read like any transcript. It is asked for at the process that runs the turn, and again every RENEW
seconds, after a gap, and after the bus failed; while that process does not answer, the stored row stands in, read again
each second, until it answers or the row has an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID
from weakref import WeakValueDictionary

from chat.cluster.bus import Bus
from chat.cluster.messages import News, Part, Subscribe, Unsubscribe
from chat.errors import HistoryUnavailable, NotFound, Unreachable
from chat.history.values import INTERRUPTED, StoredAnswer
from chat.streams.transcript import STORED, Transcript
from llm.events import Delta, Finished

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 1.0
"""How long the other process may take to answer, and how often the row is read while it does not."""

RENEW = 10.0
"""Seconds after which a generation is asked for again; see `publisher.LEASE`."""

KNOWN_SECONDS = 5.0
"""How long somebody who wants to watch waits until there is anything to show, from the other process or the row."""

Read = Callable[[], Awaitable[StoredAnswer | None]]
"""Reads the row of a generation. Raises HistoryError."""


class RemoteTranscript(Transcript):
    """Holds what a generation of another process has told, as far as is known from there or from its row."""

    def __init__(self, generation: UUID, process: UUID, read: Read) -> None:
        super().__init__(generation)
        self.process = process
        self.read = read
        self.first = STORED  # nothing that its own process has numbered
        self.known = asyncio.Event()
        """Set once there is something to show."""
        self.answered = asyncio.Event()
        self.lacking = asyncio.Event()
        """Set when something was missed, so that it is to be asked for again."""
        self.waiting = 0
        """How many wait for `known`."""
        self.asking = asyncio.Lock()
        """Held while its process is asked, so that what is said to that arrives in order."""

    async def showable(self) -> None:
        """Return once there is something to show. Raises HistoryUnavailable if process and row say nothing for long."""
        self.waiting += 1
        try:
            if not await _happens(self.known, KNOWN_SECONDS):
                raise HistoryUnavailable
        finally:
            self.waiting -= 1

    @property
    def next_seq(self) -> int:
        """The number of the first delta that is missing."""
        return 0 if self.first else len(self.deltas)

    def take(self, part: Part) -> None:
        """Add what the other process says."""
        if self.end is not None:
            return
        if part.first > self.next_seq:
            self.lacking.set()
            return
        if self.first:
            self._replace([], 0)
        self.deltas += part.deltas[self.next_seq - part.first :]
        self.given = part.given
        if part.queued != self.queued:  # the same one again is no news
            self.queued = part.queued
        self.started = self.started or part.started
        self.answered.set()
        self._end(part.end)

    def see(self, text: str, end: Finished | None) -> None:
        """Add what the row says. It lags behind the process as long as it has no end; then it is what counts."""
        if text != self.text and (end is not None or len(text) > len(self.text)):
            self._replace([], STORED)
            if text:
                self.push(Delta(text))
        self._end(end)

    def _replace(self, deltas: list[str], first: int) -> None:
        self.deltas, self.first, self.given = deltas, first, 0
        self.edition += 1

    def _end(self, end: Finished | None) -> None:
        self.end = end
        if end is not None:
            self.lacking.set()  # whoever waits to ask again need not
        self.known.set()
        self.wake()


class Follower:
    """Keeps the remote transcripts that somebody watches here up to date, by a task for each.

    Belongs to one event loop.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._remotes: WeakValueDictionary[UUID, RemoteTranscript] = WeakValueDictionary()
        self._following: dict[UUID, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    def get(self, generation: UUID) -> RemoteTranscript | None:
        return self._remotes.get(generation)

    def watch(self, generation: UUID, process: UUID, read: Read) -> RemoteTranscript:
        """Return the transcript of a generation that `process` runs, or lately ran."""
        remote = self._remotes.get(generation)
        if remote is None:
            remote = self._remotes[generation] = RemoteTranscript(generation, process, read)
            remote.on_watched = lambda watched: self._watched(generation, watched)
        self._follow(remote)
        return remote

    def take(self, news: News) -> None:
        for part in news.parts:
            if remote := self._remotes.get(part.generation):
                remote.take(part)

    def ask_again(self) -> None:
        """Ask for all of them again: something may have been lost."""
        for remote in self._remotes.values():
            remote.lacking.set()

    async def aclose(self) -> None:
        self._closed = True
        tasks = [*self._following.values(), *self._leaving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _watched(self, generation: UUID, watched: bool) -> None:
        remote = self._remotes.get(generation)
        if watched and remote is not None:
            self._follow(remote)
        elif not watched and (task := self._following.get(generation)):
            task.cancel()

    def _follow(self, remote: RemoteTranscript) -> None:
        if remote.generation not in self._following and remote.end is None and not self._closed:
            task = asyncio.create_task(self._keep_up(remote))
            self._following[remote.generation] = task
            task.add_done_callback(lambda task: self._unfollowed(remote, task))

    def _unfollowed(self, remote: RemoteTranscript, task: asyncio.Task[None]) -> None:
        self._following.pop(remote.generation, None)
        if not task.cancelled() and (error := task.exception()):
            logger.error("Generation %s could not be followed", remote.generation, exc_info=error)
        if remote.readers or remote.waiting:  # somebody came while it was being left
            self._follow(remote)
        elif remote.end is None and not self._closed:
            leaving = asyncio.create_task(self._leave(remote))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _leave(self, remote: RemoteTranscript) -> None:
        with contextlib.suppress(Unreachable):  # the lease runs out
            async with remote.asking:
                await self._bus.send(remote.process, Unsubscribe(self._bus.me, remote.generation))

    async def _keep_up(self, remote: RemoteTranscript) -> None:
        while remote.end is None:
            remote.answered.clear()
            remote.lacking.clear()
            if await self._asked(remote):
                await _happens(remote.lacking, RENEW)
            else:
                await self._read(remote)
            if not remote.readers and not remote.waiting:
                return

    async def _asked(self, remote: RemoteTranscript) -> bool:
        """Ask its process for what is missing; return whether it has answered."""
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        with contextlib.suppress(Unreachable):
            async with remote.asking:
                await self._bus.send(remote.process, Subscribe(self._bus.me, remote.generation, remote.next_seq))
        return await _happens(remote.answered, deadline - asyncio.get_running_loop().time())

    async def _read(self, remote: RemoteTranscript) -> None:
        try:
            stored = await remote.read()
        except NotFound:  # deleted
            stored = None
        except Exception as error:
            if not isinstance(error, HistoryUnavailable):
                logger.error("The row of generation %s could not be read", remote.generation, exc_info=error)
            return
        if stored is None:
            remote.see(remote.text, INTERRUPTED)
        elif stored.generation.finished is not None or not remote.answered.is_set():
            remote.see(stored.text, stored.generation.finished)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
