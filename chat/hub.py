"""The turns of this process and the sockets of this process; `chat.elsewhere` has the others.

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
    """What is due to one socket: the transcripts it follows, and notices of which only the latest counts.

    `wake` is called whenever something may be due; it must not read on the spot.
    """

    def __init__(self, watches: int, wake: Callable[[], None]) -> None:
        self.set: Callable[[], None] = wake  # as the reader of a transcript
        self._limit = watches
        self._watches: dict[UUID, Watch] = {}
        self._notices: dict[object, ServerFrame] = {}

    def notice(self, key: object, frame: ServerFrame) -> None:
        """Have `frame` sent, in the place of an earlier one of the same key that was not sent yet."""
        self._notices[key] = frame
        self.set()

    def follow(self, transcript: Transcript, next_seq: int | None = None) -> None:
        """Watch a generation. Beyond the limit, the one that was followed first is no longer."""
        self.unfollow(transcript.generation)
        while len(self._watches) >= self._limit:
            self.unfollow(next(iter(self._watches)))
        self._watches[transcript.generation] = Watch(transcript, self, next_seq)

    def unfollow(self, generation: UUID) -> None:
        if watch := self._watches.pop(generation, None):
            watch.leave()

    def frames(self) -> Iterator[ServerFrame]:
        """What is due now."""
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
        """Follow nothing more, and wake nobody."""
        for generation in list(self._watches):
            self.unfollow(generation)
        self.set = _wake_nobody


def _wake_nobody() -> None:
    """For a feed that is closed."""


class Hub:
    """Who runs here, and who listens here. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[UUID, tuple[Transcript, Callable[[], None]]] = {}
        self._feeds: dict[UUID, dict[Feed, Callable[[], None]]] = {}
        self._restarting: ServerRestarting | None = None
        self.announce_elsewhere: Callable[[UUID, UUID], None] | None = None
        """Tells the other processes, if there may be any."""
        self.recheck_elsewhere: Callable[[UUID], None] | None = None

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

    def stop(self, generation: UUID) -> bool:
        """End a turn, unless it has ended. False if it is not here."""
        found = self._running.get(generation)
        if found is not None:
            found[1]()
        return found is not None

    def join(self, visitor: UUID, feed: Feed, recheck: Callable[[], None]) -> Callable[[], None]:
        """Tell `feed` what changes for this visitor, and call `recheck` when its session may have ended.

        What comes back ends that.
        """
        self._feeds.setdefault(visitor, {})[feed] = recheck
        if self._restarting is not None:
            feed.notice(ServerRestarting, self._restarting)

        def leave() -> None:
            feeds = self._feeds.get(visitor, {})
            feeds.pop(feed, None)
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
        """Tell all of the visitor's sockets that a conversation changed."""
        self.notice(visitor, conversation)
        if self.announce_elsewhere is not None:
            self.announce_elsewhere(visitor, conversation)

    def notice(self, visitor: UUID, conversation: UUID) -> None:
        """Tell those in this process."""
        for feed in self._feeds.get(visitor, ()):
            feed.notice(conversation, ConversationChanged(conversation=conversation))

    def recheck(self, visitor: UUID) -> None:
        """Have all of the visitor's sockets look whether their session is still there."""
        self.recheck_here(visitor)
        if self.recheck_elsewhere is not None:
            self.recheck_elsewhere(visitor)

    def recheck_here(self, visitor: UUID) -> None:
        """Those in this process."""
        for recheck in self._feeds.get(visitor, {}).values():
            recheck()
