"""Checks that a socket's session is still what it was when the socket opened. Knows a clock, and no sockets."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from chat.turns.unwatched import later

logger = logging.getLogger(__name__)


class Revalidation:
    """Calls `ended` once `remains` returns False. It is asked every `seconds`, and when somebody has a reason to ask.

    When it raises, it is asked again the next time. Belongs to one event loop.
    """

    def __init__(self, seconds: float, remains: Callable[[], Awaitable[bool]], ended: Callable[[], None]) -> None:
        self._seconds = seconds
        self._remains = remains
        self._ended = ended
        self._asking: asyncio.Task[None] | None = None
        self._again = False
        self._timer = later(seconds * random.uniform(0.5, 1.0), self.now)  # noqa: S311 so that not all ask at once

    def now(self) -> None:
        """Ask at once."""
        self._timer.cancel()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        else:
            self._again = True

    def close(self) -> None:
        """Ask no more."""
        self._timer.cancel()
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> None:
        try:
            remains = await self._remains()
        except Exception as error:  # noqa: BLE001 whatever keeps it from being known does not end it
            logger.warning("A session could not be looked at; it is tried again: %s", error)
            remains = True
        self._asking = None
        if not remains:
            self._ended()
        elif self._again:
            self._again = False
            self.now()
        else:
            self._timer = later(self._seconds, self.now)
