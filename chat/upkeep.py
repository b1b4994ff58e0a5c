"""The purge, once a minute, by one of the web processes.

Knows a clock and a thread of its own, so that no turn waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

from channels.db import database_sync_to_async
from django.db import Error

from chat import purge

logger = logging.getLogger(__name__)


class Upkeep:
    """That of this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-upkeep")
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def once(self) -> purge.Purged | None:
        """Purge, if it is time and no other process does it."""
        work = database_sync_to_async(self._purge_if_due, thread_sensitive=False, executor=self._thread)
        purged: purge.Purged | None = await work()
        return purged

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except Error as error:
                logger.error("The purge failed; it is tried again in a minute: %s", error)
            except Exception:
                logger.exception("The purge failed; it is tried again in a minute")
            await asyncio.sleep(purge.EVERY.total_seconds())

    def _purge_if_due(self) -> purge.Purged | None:
        return purge.purge(stop=self._stop) if purge.begin() else None
