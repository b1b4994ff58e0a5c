"""Connects the turns of this process with the sockets of this process; `chat.cluster` has those of other processes.

Knows no database: whether a visitor may see or stop something was decided before anyone asks here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from uuid import UUID

from chat.streams.feed import Feed
from chat.streams.transcript import Transcript, tell
from chat.wire.frames import ConversationChanged, ServerRestarting

KEEP_SECONDS = 60
"""How long the transcript of a turn that ended stays in memory; after that, its row answers."""


class Hub:
    """Knows which turns run here, and which sockets listen here. Belongs to one event loop."""

    def __init__(self) -> None:
        self._running: dict[UUID, tuple[Transcript, Callable[[], None]]] = {}
        self._feeds: dict[UUID, dict[Feed, Callable[[], None]]] = {}
        self._restarting: ServerRestarting | None = None
        self.announce_to_others: Callable[[UUID, UUID], None] | None = None
        """Called to tell the other processes, if there may be any."""
        self.recheck_at_others: Callable[[UUID], None] | None = None

    def add(self, transcript: Transcript, stop: Callable[[], None]) -> None:
        """Add a turn that runs from now on; `stop` ends it."""
        self._running[transcript.generation] = transcript, stop

    def remove(self, generation: UUID) -> None:
        self._running.pop(generation, None)

    def retire(self, generation: UUID) -> None:
        """Remove a turn that has ended, after KEEP_SECONDS in which it can still be read."""
        asyncio.get_running_loop().call_later(KEEP_SECONDS, self.remove, generation)

    def transcript(self, generation: UUID) -> Transcript | None:
        """Return the transcript of a turn that runs here or ended here lately."""
        found = self._running.get(generation)
        return found[0] if found else None

    def stop(self, generation: UUID) -> bool:
        """End a turn, unless it has ended. Return False if it is not here."""
        found = self._running.get(generation)
        if found is not None:
            found[1]()
        return found is not None

    def join(self, visitor: UUID, feed: Feed, recheck: Callable[[], None]) -> Callable[[], None]:
        """Tell `feed` what changes for this visitor, and call `recheck` when its session may have ended.

        Returns a function that ends that.
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
        """Return how many sockets of the visitor are open in this process."""
        return len(self._feeds.get(visitor, ()))

    def restart(self, retry_after: float) -> None:
        """Tell every socket, and those to come, that this process is about to end."""
        self._restarting = ServerRestarting(retry_after=retry_after)
        for feeds in self._feeds.values():
            for feed in feeds:
                tell(partial(feed.notice, ServerRestarting, self._restarting))

    @property
    def restarting(self) -> bool:
        return self._restarting is not None

    def announce(self, visitor: UUID, conversation: UUID) -> None:
        """Tell all of the visitor's sockets that a conversation changed."""
        self.notice(visitor, conversation)
        if self.announce_to_others is not None:
            self.announce_to_others(visitor, conversation)

    def notice(self, visitor: UUID, conversation: UUID) -> None:
        """Tell the visitor's sockets in this process that a conversation changed."""
        for feed in self._feeds.get(visitor, ()):
            tell(partial(feed.notice, conversation, ConversationChanged(conversation=conversation)))

    def recheck(self, visitor: UUID) -> None:
        """Have all of the visitor's sockets check whether their session is still there."""
        self.recheck_here(visitor)
        if self.recheck_at_others is not None:
            self.recheck_at_others(visitor)

    def recheck_here(self, visitor: UUID) -> None:
        """Have the visitor's sockets in this process check their session."""
        for recheck in self._feeds.get(visitor, {}).values():
            tell(recheck)
