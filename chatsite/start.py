"""What happens once before this process serves anything, whichever server runs it.

With SQLite there is one web process: it holds a lock on `var/web.lock`, ends what an earlier one left unfinished, and
has the model start loading. `serve` calls `start` itself; under plain daphne the first connection does.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import IO

from django.conf import settings

import llm
from chat.history import get_history
from chat.turns import get_turns
from chatsite.origin import App, Receive, Scope, Send

logger = logging.getLogger(__name__)


class AlreadyServing(Exception):
    """Another process serves this site's `var`."""


class Starting:
    """An ASGI application that starts the site before its first connection."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await start()
        await self.app(scope, receive, send)


_lock: IO[str] | None = None
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
    """Begin nothing new, let the answers under way end for so long, and end the rest, their text stored."""
    if _lock is not None:
        await get_turns().drain(seconds)
        await get_turns().aclose()


async def stop() -> None:
    """End what runs in this process, its text stored, and let another process serve."""
    global _started, _lock
    if _lock is None:
        return  # it never started
    await get_turns().aclose()
    await llm.get_controller().aclose()
    _lock.close()
    _started = _lock = None


async def _start() -> None:
    global _lock
    _lock = _locked(settings.CHATSTREAM_VAR / "web.lock")
    if interrupted := await get_history().recover():
        logger.warning("%d answers of an earlier process were interrupted", interrupted)
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
            f"Process {holder} serves {path.parent} already. Stop it, or give this one its own CHATSTREAM_VAR."
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
