"""The other processes, as the turns of this one see them: what is watched there, what they watch here, what is told.

Knows no rows and no sockets: who may see or stop something was decided before anyone asks here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any
from uuid import UUID

from chat.hub import Hub
from chat.peers import AnyMessage, Changed, Leave, Line, News, Recheck, Stop, Unreachable, Watch
from chat.relay import Relay
from chat.remote import Read, Remote, Remotes

logger = logging.getLogger(__name__)

GAP = 0.05
"""Seconds between two messages that say what changed."""


class Elsewhere:
    """Belongs to one event loop. `layer` is a channel layer, `me` this process's name in the rows of its turns."""

    def __init__(self, layer: Any, me: UUID, hub: Hub) -> None:
        self.me = me
        self._hub = hub
        self._line = Line(layer, me, self._hear, self._broken)
        self._relay = Relay(self._line, hub.transcript)
        self._remotes = Remotes(self._line)
        self._changed: dict[tuple[UUID, UUID], None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._rechecks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        self._line.open()
        self._hub.announce_elsewhere = self._announce
        self._hub.recheck_elsewhere = self._recheck

    async def aclose(self) -> None:
        """Tell what is left to tell, and listen no more."""
        self._hub.announce_elsewhere = self._hub.recheck_elsewhere = None
        await self._relay.aclose()
        if self._telling is not None:
            await asyncio.wait([self._telling])
        await asyncio.gather(*self._rechecks)
        await self._remotes.aclose()
        await self._line.aclose()

    def get(self, generation: UUID) -> Remote | None:
        """That of a generation somebody watches here."""
        return self._remotes.get(generation)

    def watch(self, generation: UUID, owner: UUID, read: Read) -> Remote:
        """A generation of the process `owner`; `read` reads its row, should that be silent."""
        return self._remotes.watch(generation, owner, read)

    async def stop(self, generation: UUID) -> None:
        """Have whoever runs it end it. Raises Unreachable."""
        await self._line.send_all(Stop(generation))

    def _announce(self, visitor: UUID, conversation: UUID) -> None:
        self._changed[visitor, conversation] = None
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        try:
            while self._changed:
                changed, self._changed = list(self._changed), {}
                await self._line.send_all(Changed(self._line.me, changed))
                await asyncio.sleep(GAP)
        except Unreachable as error:
            logger.warning("Other processes were not told of %d changes: %s", len(changed), error.__cause__)
        finally:
            self._telling = None

    def _recheck(self, visitor: UUID) -> None:
        task = asyncio.create_task(self._send_recheck(visitor))
        self._rechecks.add(task)
        task.add_done_callback(self._rechecks.discard)

    async def _send_recheck(self, visitor: UUID) -> None:
        try:
            await self._line.send_all(Recheck(self._line.me, visitor))
        except Unreachable as error:  # they look by themselves, in a while
            logger.warning("Other processes were not told of a session that ended: %s", error.__cause__)

    def _broken(self) -> None:
        self._remotes.ask_again()

    def _hear(self, message: AnyMessage) -> None:
        match message:
            case News():
                self._remotes.take(message)
            case Watch():
                self._relay.watch(message)
            case Leave():
                self._relay.leave(message)
            case Stop():
                self._hub.stop(message.generation)
            case Recheck() if message.process != self._line.me:
                self._hub.recheck_here(message.visitor)
            case Changed() if message.process != self._line.me:
                for visitor, conversation in message.conversations:
                    self._hub.notice(visitor, conversation)
