"""How many messages a minute: of one visitor, and of one address.

Counts for the whole site in Redis, if it has one; else in this process, as it does while Redis is away. Knows no
sockets and no turns; what a message is, and whether it counts, its callers decide.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import Any
from uuid import UUID

from django.conf import settings
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chat.conf import get_settings
from chat.protocol import ERRORS
from llm.errors import RequestError

logger = logging.getLogger(__name__)

REDIS_SECONDS = 1.0
"""How long Redis may take to count a message."""

Counted = list[tuple[FixedWindowRateLimiter, RateLimitItem, str]]
"""What was counted, and where."""


class RateLimited(RequestError):
    """More messages than one may send in a minute."""

    code = "rate_limited"


class Rates:
    """Messages of the last minute; the minute begins with the first of them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._here = FixedWindowRateLimiter(MemoryStorage())
        self._pool = _pool(settings.REDIS_URL) if settings.REDIS_URL else None
        self._site = self._here if self._pool is None else FixedWindowRateLimiter(_storage(self._pool))
        self._alone = False

    async def aclose(self) -> None:
        if self._pool is not None:
            await self._pool.aclose()

    async def take(self, visitor: UUID, address: str = "") -> Counted:
        """Count a message; what comes back undoes that. Raises RateLimited, and has then counted nothing."""
        counted: Counted = []
        for limit, who in _limits(visitor, address):
            try:
                reset = await self._hit(self._site, limit, who, counted)
                self._alone = False
            except StorageError as error:
                if not self._alone:
                    logger.error("Redis does not count messages; this process does: %s", error)
                self._alone = True
                reset = await self._hit(self._here, limit, who, counted)
            if reset is not None:
                await self.give_back(counted)
                raise RateLimited(ERRORS[RateLimited.code], retry_after=max(1, math.ceil(reset - time.time())))
        return counted

    async def give_back(self, counted: Counted) -> None:
        """The message came to nothing."""
        for limiter, limit, who in counted:
            with contextlib.suppress(StorageError):
                await limiter.storage.incr(limit.key_for(who), limit.get_expiry(), amount=-1)

    async def _hit(
        self, limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: str, counted: Counted
    ) -> float | None:
        """Count it; when the next one may come, if this one is too many. Raises StorageError."""
        allowed = await limiter.hit(limit, who)
        counted.append((limiter, limit, who))
        return None if allowed else (await limiter.get_window_stats(limit, who)).reset_time


def _pool(url: str) -> ConnectionPool:
    retry = Retry(NoBackoff(), 1)  # for a connection that Redis has closed since it was last used
    return ConnectionPool.from_url(url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS, retry=retry)


def _storage(pool: ConnectionPool) -> RedisStorage:
    options: dict[str, Any] = {"connection_pool": pool}
    return RedisStorage("async+redis://", wrap_exceptions=True, implementation="redispy", **options)


def _limits(visitor: UUID, address: str) -> list[tuple[RateLimitItem, str]]:
    chat = get_settings()
    limits = ((chat.messages_per_minute, f"visitor {visitor}"), (chat.messages_per_minute_per_address, address))
    return [(RateLimitItemPerMinute(amount), who) for amount, who in limits if amount and who]
