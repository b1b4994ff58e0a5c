"""The turns of this process and the sockets that follow them.

Knows no database: whether a visitor may see or stop something was decided before anyone asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from uuid import UUID

from chat.protocol import ConversationChanged, ServerFrame, ServerRestarting
from chat.transcript import Transcript, Watch

KEEP_SECONDS = 60
"""How long the transcript of a turn that ended stays in memory; after that, its row answers."""


class Feed:
    """What is due to one socket: the transcripts it follows, and notices of which only the latest counts."""

    def __init__(self, watches: int) -> None:
        self.changed = asyncio.Event()
        self._limit = watches
        self._watches: dict[UUID, Watch] = {}
        self._notices: dict[object, ServerFrame] = {}

    def notice(self, key: object, frame: ServerFrame) -> None:
        """Have `frame` sent, in the place of an earlier one of the same key that was not sent yet."""
        self._notices[key] = frame
        self.changed.set()

    def follow(self, transcript: Transcript, next_seq: int | None = None) -> None:
        """Watch a generation. Beyond the limit, the one that was followed first is no longer."""
        self.unfollow(transcript.generation)
        while len(self._watches) >= self._limit:
            self.unfollow(next(iter(self._watches)))
        self._watches[transcript.generation] = Watch(transcript, self.changed, next_seq)

    def unfollow(self, generation: UUID) -> None:
        if watch := self._watches.pop(generation, None):
            watch.leave()

    def frames(self) -> Iterator[ServerFrame]:
        """What is due now."""
        self.changed.clear()
        while self._notices:
            yield self._notices.pop(next(iter(self._notices)))
        for watch in list(self._watches.values()):
            yield from watch.frames()
            if watch.done and self._watches.get(watch.transcript.generation) is watch:
                self.unfollow(watch.transcript.generation)

    @property
    def idle(self) -> bool:
        """Nothing is due, and nothing that it follows can still happen."""
        return not self._notices and not self._watches

    def close(self) -> None:
        for generation in list(self._watches):
            self.unfollow(generation)


class Hub:
    """Who runs here, and who listens here. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[UUID, tuple[Transcript, Callable[[], None]]] = {}
        self._feeds: dict[UUID, set[Feed]] = {}
        self._restarting: ServerRestarting | None = None

    def add(self, transcript: Transcript, stop: Callable[[], None]) -> None:
        """A turn that runs from now on; `stop` ends it."""
        self._running[transcript.generation] = transcript, stop

    def remove(self, generation: UUID) -> None:
        self._running.pop(generation, None)

    def retire(self, generation: UUID) -> None:
        """Its turn has ended; it can be read for a while."""
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self.remove, generation)

    def transcript(self, generation: UUID) -> Transcript | None:
        """That of a turn that runs here or ended here lately."""
        found = self._running.get(generation)
        return found[0] if found else None

    def stop(self, generation: UUID) -> None:
        """End a turn, wherever it is; nothing happens to one that has ended."""
        if found := self._running.get(generation):
            found[1]()

    def join(self, visitor: UUID, feed: Feed) -> Callable[[], None]:
        """Tell `feed` what changes for this visitor; what comes back ends that."""
        self._feeds.setdefault(visitor, set()).add(feed)
        if self._restarting is not None:
            feed.notice(ServerRestarting, self._restarting)

        def leave() -> None:
            feeds = self._feeds.get(visitor, set())
            feeds.discard(feed)
            if not feeds:
                self._feeds.pop(visitor, None)

        return leave

    def sockets(self, visitor: UUID) -> int:
        """How many of the visitor's sockets are told."""
        return len(self._feeds.get(visitor, ()))

    def restart(self, retry_after: float) -> None:
        """Tell every socket, those to come too, that this process is about to end."""
        self._restarting = ServerRestarting(retry_after=retry_after)
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.notice(ServerRestarting, self._restarting)

    @property
    def restarting(self) -> bool:
        return self._restarting is not None

    def announce(self, visitor: UUID, conversation: UUID) -> None:
        """Tell the visitor's sockets that a conversation changed."""
        for feed in self._feeds.get(visitor, ()):
            feed.notice(conversation, ConversationChanged(conversation=conversation))
