"""Connects this process with the other web processes of the site.

Follows and stops turns there, sends them turns of this process, and tells both ways what changed. Knows no rows and no
sockets: who may see or stop something was decided before anyone asks here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

from chat.cluster.bus import Bus
from chat.cluster.follower import Follower, Read, RemoteTranscript
from chat.cluster.messages import AnyMessage, Changed, News, Recheck, Stop, Subscribe, Unsubscribe
from chat.cluster.publisher import Publisher
from chat.errors import Unreachable
from chat.streams.hub import Hub

logger = logging.getLogger(__name__)

GAP = 0.05
"""Seconds between two messages that say what changed."""


class Cluster:
    """The other processes, as this one sees them over the channel layer; `me` names this one in the rows of its turns.

    Belongs to one event loop.
    """

    def __init__(self, layer: Any, me: UUID, hub: Hub) -> None:
        self.me = me
        self._hub = hub
        self._bus = Bus(layer, me, self._hear, self._broken)
        self._publisher = Publisher(self._bus, hub.transcript)
        self._follower = Follower(self._bus)
        self._changed: dict[tuple[UUID, UUID], None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._rechecks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._bus.open()
        self._hub.announce_to_others = self._announce
        self._hub.recheck_at_others = self._recheck

    async def aclose(self) -> None:
        """Send what is left to send, and listen no more."""
        self._hub.announce_to_others = self._hub.recheck_at_others = None
        await self._publisher.aclose()
        if self._telling is not None:
            await asyncio.wait([self._telling])
        await asyncio.gather(*self._rechecks)
        await self._follower.aclose()
        await self._bus.aclose()

    def get(self, generation: UUID) -> RemoteTranscript | None:
        """Return the transcript of a generation of another process that somebody watches here."""
        return self._follower.get(generation)

    def watch(self, generation: UUID, process: UUID, read: Read) -> RemoteTranscript:
        """Return the transcript of a generation of `process`; `read` reads its row, should that be silent."""
        return self._follower.watch(generation, process, read)

    async def stop(self, generation: UUID) -> None:
        """Have whoever runs a generation end it. Raises Unreachable."""
        await self._bus.send_all(Stop(generation))

    def _announce(self, visitor: UUID, conversation: UUID) -> None:
        self._changed[visitor, conversation] = None
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._changed:
                changed, self._changed = list(self._changed), {}
                await self._send_changed(changed)
                await asyncio.sleep(GAP)
        finally:
            self._telling = None

    async def _send_changed(self, changed: list[tuple[UUID, UUID]]) -> None:
        try:
            await self._bus.send_all(Changed(self._bus.me, changed))
        except Unreachable as error:
            logger.warning("Other processes were not told of %d changes: %s", len(changed), error.__cause__)

    def _recheck(self, visitor: UUID) -> None:
        task = asyncio.create_task(self._send_recheck(visitor))
        self._rechecks.add(task)
        task.add_done_callback(self._rechecks.discard)

    async def _send_recheck(self, visitor: UUID) -> None:
        try:
            await self._bus.send_all(Recheck(self._bus.me, visitor))
        except Unreachable as error:  # they look by themselves, in a while
            logger.warning("Other processes were not told of a session that ended: %s", error.__cause__)

    def _broken(self) -> None:
        self._follower.ask_again()

    def _hear(self, message: AnyMessage) -> None:
        match message:
            case News():
                self._follower.take(message)
            case Subscribe():
                self._publisher.subscribe(message)
            case Unsubscribe():
                self._publisher.unsubscribe(message)
            case Stop():
                self._hub.stop(message.generation)
            case Recheck() if message.process != self._bus.me:
                self._hub.recheck_here(message.visitor)
            case Changed() if message.process != self._bus.me:
                for visitor, conversation in message.conversations:
                    self._hub.notice(visitor, conversation)
