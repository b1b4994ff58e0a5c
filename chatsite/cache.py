"""Caches in Redis, for a site that goes on while Redis is away: what cannot be asked for is not there."""

from __future__ import annotations

import logging
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)


_clients: dict[tuple[str, ...], Any] = {}


class Cache(RedisCache):
    """Misses while Redis does not answer, and keeps nothing then."""

    @property
    def _cache(self) -> Any:
        """One client, with one pool of connections, for the process: Django makes a cache object for each request."""
        made: Any = self
        servers = tuple(made._servers)
        if servers not in _clients:
            _clients[servers] = made._class(made._servers, **made._options)
        return _clients[servers]

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        try:
            return super().get(key, default, version)
        except RedisError as error:
            return _without(error, default)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        try:
            super().set(key, value, timeout, version)
        except RedisError as error:
            _without(error, None)

    def delete(self, key: str, version: int | None = None) -> bool:
        try:
            return bool(super().delete(key, version))
        except RedisError as error:
            return bool(_without(error, False))

    def has_key(self, key: str, version: int | None = None) -> bool:
        try:
            return bool(super().has_key(key, version))
        except RedisError as error:
            return bool(_without(error, False))


class SessionCache(Cache):
    """Keeps copies of sessions, whose rows count. One that ended while Redis was away is gone a minute later."""

    LONGEST = 60

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> int:
        seconds = super().get_backend_timeout(timeout)
        return self.LONGEST if seconds is None else min(int(seconds), self.LONGEST)


def _without(error: RedisError, instead: Any) -> Any:
    logger.warning("Redis does not answer, the database is asked instead: %s", error)
    return instead
