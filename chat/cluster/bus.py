"""Carries messages between web processes: one channel of the channel layer for each.

The channel layer loses messages when it is full, restarts, or is away. Whoever sends learns of a failure, whoever
listens learns of every break. Knows no sockets, no turns and no database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from chat.cluster.messages import AnyMessage, decode, encode
from chat.errors import Unreachable
from chat.streams.transcript import tell

logger = logging.getLogger(__name__)

GROUP = "processes"
SEND_SECONDS = 2.0
"""How long the layer may take to take a message."""
REJOIN = 5.0
"""Seconds between two entries into the group: a Redis that lost its data forgets who was in it."""
BACKOFF = 0.5
"""Seconds after a failure of the layer."""


class Bus:
    """This process's end of the channel layer. Belongs to one event loop.

    `hear` gets every message, `broken` is called when the layer fails and when it is back.
    """

    def __init__(self, layer: Any, me: UUID, hear: Callable[[AnyMessage], None], broken: Callable[[], None]) -> None:
        self.me = me
        self._layer = layer
        self._hear = hear
        self._broken = broken
        self._failing = False
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._stay())]

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._quietly(lambda: self._layer.group_discard(GROUP, _channel(self.me)))
        if hasattr(self._layer, "close_pools"):  # the one in memory has none
            await self._quietly(self._layer.close_pools)

    async def send(self, process: UUID, message: AnyMessage) -> None:
        """Send a message to a process; it arrives, most likely. Raises Unreachable."""
        await self._do(lambda: self._layer.send(_channel(process), _packed(message)))

    async def send_all(self, message: AnyMessage) -> None:
        """Send a message to every process, this one too. Raises Unreachable."""
        await self._do(lambda: self._layer.group_send(GROUP, _packed(message)))

    async def _join(self) -> None:
        await self._do(lambda: self._layer.group_add(GROUP, _channel(self.me)))

    async def _do(self, ask: Callable[[], Awaitable[None]]) -> None:
        """Ask something of the layer. Raises Unreachable."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await ask()
        except Exception as error:  # layers differ in what they raise
            raise Unreachable from error

    async def _listen(self) -> None:
        while True:
            try:
                await self._join()
                tell(self._broken)
                await self._hear_on()
            except Exception as error:  # noqa: BLE001 layers differ in what they raise
                if not self._failing:
                    logger.error("The channel layer failed; trying on: %s", error.__cause__ or error)
                    self._failing = True
                    tell(self._broken)
                await asyncio.sleep(BACKOFF)

    async def _hear_on(self) -> None:
        while True:
            packed = await self._layer.receive(_channel(self.me))
            self._failing = False
            try:
                self._hear(decode(packed["message"]))
            except Exception:
                logger.exception("A message of another process could not be taken")

    async def _stay(self) -> None:
        while True:
            await asyncio.sleep(REJOIN)
            await self._quietly(lambda: self._layer.group_add(GROUP, _channel(self.me)))

    async def _quietly(self, doing: Callable[[], Awaitable[None]]) -> None:
        """Do what the listener will see fail too, or nobody needs any more."""
        try:
            await self._do(doing)
        except Unreachable as error:
            logger.debug("The channel layer: %s", error.__cause__)


def _channel(process: UUID) -> str:
    return f"process.{process.hex}"


def _packed(message: AnyMessage) -> dict[str, Any]:
    return {"type": "peer", "message": encode(message)}
