"""Starts and ends what this process needs around its connections, whichever server runs it.

One web process holds a lock on `var/web.lock` and ends what an earlier one left unfinished. Where there may be several
(PostgreSQL and Redis), each gives signs of life instead, and they end what one that has none any more has left.
`serve` calls `start` itself; under plain daphne the first connection does.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from channels.layers import get_channel_layer
from django.conf import settings

import llm
from chat.cluster.heartbeat import Heartbeat
from chat.history.generations import PROCESS
from chat.history.history import get_history
from chat.retention import Retention
from chat.turns.registry import get_turns
from chatsite.origin import App, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AlreadyServing(Exception):
    """Raised when another process serves this site's `var`."""


class Starting:
    """An ASGI application that starts the site before its first connection."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await start()
        await self.app(scope, receive, send)


_lock: IO[str] | None = None
_heartbeat: Heartbeat | None = None
_retention: Retention | None = None
_started: asyncio.Future[None] | None = None


async def start() -> None:
    """Start the site; later calls wait for the first one. Raises AlreadyServing."""
    global _started
    if _started is None:
        _started = asyncio.ensure_future(_start())
    try:
        await asyncio.shield(_started)
    except AlreadyServing:
        _started = None  # the next one tries again: that process may have ended
        raise


async def drain(seconds: float) -> None:
    """Begin nothing new, give answers under way so many seconds to end, and end the rest, with their text stored."""
    if _heartbeat is not None:
        await get_turns().drain(seconds)
        await get_turns().aclose()


async def stop() -> None:
    """End what runs in this process, with its text stored, and let another process serve."""
    global _started, _lock, _heartbeat, _retention
    if _heartbeat is None or _retention is None:
        return  # it never started
    await _retention.aclose()
    turns = get_turns()
    await turns.aclose()
    await turns.part()
    await _heartbeat.aclose()
    await llm.get_controller().aclose()
    if _lock is not None:
        _lock.close()
    _started = _lock = _heartbeat = _retention = None


async def _start() -> None:
    global _lock, _heartbeat, _retention
    turns = get_turns()
    heartbeat = Heartbeat(lambda generation: turns.hub.transcript(generation) is not None, turns.hub.announce)
    if settings.SEVERAL_PROCESSES:
        turns.meet(get_channel_layer(), PROCESS)
    else:
        _lock = _locked(settings.CHATSTREAM_VAR / "web.lock")
        if interrupted := await get_history().recover():
            logger.warning("%d answers of an earlier process were interrupted", interrupted)
    await heartbeat.start()
    _heartbeat, _retention = heartbeat, Retention()
    _retention.start()
    llm.get_controller()  # connects, and the model loads


def _locked(path: Path) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise AlreadyServing(
            f"Process {holder} serves {path.parent} already. Stop it, or give this one its own CHATSTREAM_VAR. "
            "For several processes of one site set DATABASE_URL (PostgreSQL) and REDIS_URL."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
