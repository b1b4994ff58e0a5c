"""Counts how often something happens in a minute, by visitor or by address, and refuses what is too often.

Counts for the whole site in Redis, if it has one; else in this process, and while Redis is away. Knows no sockets and
no turns; what counts, and whether it came to nothing, its callers decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from chat.errors import RateLimited

logger = logging.getLogger(__name__)

REDIS_SECONDS = 1.0
"""How long Redis may take to count."""

PAUSE_SECONDS = 5.0
"""How long a Redis that let us wait in vain is not asked again: others wait behind whoever waits for it."""

THREADS = 16
"""How many may wait for Redis at a time."""

Limit = tuple[int, str]
"""How often in a minute (0: without a limit), and who ("": not known, so without a limit)."""

Counted = list[tuple[FixedWindowRateLimiter, RateLimitItem, str]]
"""What was counted, and where."""


class Limiter:
    """Counts events of one kind in a minute, which begins with the first of them. `what` names them in the log.

    Thread-safe.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._here = FixedWindowRateLimiter(MemoryStorage())
        self._pool = _pool(settings.REDIS_URL) if settings.REDIS_URL else None
        self._site = self._here if self._pool is None else _limiter(self._pool)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="chat-limiter")
        self._alone = False
        self._ask_again = 0.0
        """When Redis may be asked, by `time.monotonic`."""

    def take(self, limits: Iterable[Limit]) -> Counted:
        """Count one more against each of `limits`; return what undoes that.

        Raises RateLimited when it is one too many, and has then counted nothing.
        """
        counted: Counted = []
        for limit, who in _items(limits):
            reset = self._count(limit, who, counted)
            if reset is not None:
                self.give_back(counted)
                raise RateLimited(retry_after=max(1, math.ceil(reset - time.time())))
        return counted

    def _count(self, limit: RateLimitItem, who: str, counted: Counted) -> float | None:
        began = time.monotonic()
        if began < self._ask_again:
            return _hit(self._here, limit, who, counted)
        try:
            reset = _hit(self._site, limit, who, counted)
        except StorageError as error:
            if not self._alone:
                logger.error("Redis does not count %s; this process does: %s", self._what, error)
            self._alone = True
            if time.monotonic() - began >= REDIS_SECONDS:
                self._ask_again = time.monotonic() + PAUSE_SECONDS
            return _hit(self._here, limit, who, counted)
        self._alone = False
        return reset

    def give_back(self, counted: Counted) -> None:
        """Undo the counting of something that came to nothing."""
        for limiter, limit, who in counted:
            with contextlib.suppress(StorageError):
                limiter.storage.incr(limit.key_for(who), limit.get_expiry(), amount=-1)

    async def atake(self, limits: Iterable[Limit]) -> Counted:
        """Do as `take`, without blocking the event loop."""
        if self._pool is None:
            return self.take(limits)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.take, limits)

    async def agive_back(self, counted: Counted) -> None:
        """Do as `give_back`, without blocking the event loop."""
        if all(limiter is self._here for limiter, _, _ in counted):
            self.give_back(counted)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, self.give_back, counted)

    def close(self) -> None:
        """Give up the connections to Redis."""
        self._threads.shutdown(wait=False)
        if self._pool is not None:
            self._pool.disconnect()


def _hit(limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: str, counted: Counted) -> float | None:
    """Count it; return when the next one may come, if this one is too many. Raises StorageError."""
    allowed = limiter.hit(limit, who)
    counted.append((limiter, limit, who))
    return None if allowed else limiter.get_window_stats(limit, who).reset_time


def _items(limits: Iterable[Limit]) -> list[tuple[RateLimitItem, str]]:
    return [(RateLimitItemPerMinute(amount), who) for amount, who in limits if amount and who]


def _pool(url: str) -> ConnectionPool:
    retry = Retry(NoBackoff(), 1)  # for a connection that Redis has closed since it was last used
    return ConnectionPool.from_url(url, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS, retry=retry)


def _limiter(pool: ConnectionPool) -> FixedWindowRateLimiter:
    return FixedWindowRateLimiter(RedisStorage("redis://", connection_pool=pool, wrap_exceptions=True))
