"""Makes Django's settings for the database and for Redis from their addresses.

Opens no connections. What an address leaves out has the value that keeps the site up while its database or Redis is
away: waits are short, connections are checked before they are used, and nothing is tried again behind our back.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url

POOL = {"min_size": 2, "max_size": 20, "timeout": 5.0, "reconnect_timeout": 5.0}
"""Connections to PostgreSQL of one process, the seconds one may be waited for, and for how long a lost one is replaced.

Each try to replace it waits twice as long as the one before. Without that limit a process would be back so long after a
long outage that others, which were back before, took it for dead.
"""

LIMITS = "-c lock_timeout=5s -c idle_in_transaction_session_timeout=30s"
"""A process that was stopped within a transaction holds its rows so long, and makes others wait so long for one.

The writes of a process queue up behind each other: without this, one visitor's row could hold up everybody's. Whoever
puts a PgBouncer between needs its `ignore_startup_parameters = options`.
"""

REDIS_SECONDS = 1.0
"""How long one of Redis's answers may take before the page does without it."""

LISTEN_SECONDS = 15.0
"""How long one may take for the channel layer, whose listener waits up to 5 seconds for a message."""


def database(url: str, var: Path) -> dict[str, Any]:
    """Return Django's settings of the database at `url` ("": SQLite in `var`). Exits with a line on nonsense."""
    if not url:
        return _sqlite(var)
    if urlsplit(url).scheme not in ("postgresql", "postgres"):
        sys.exit("DATABASE_URL: give postgresql://user:password@host:port/name, or nothing for SQLite in var")
    found: dict[str, Any] = {**dj_database_url.parse(url, conn_health_checks=True)}
    found["OPTIONS"] = {"connect_timeout": 5, "pool": POOL, "options": LIMITS, **found.get("OPTIONS", {})}
    return found


def _sqlite(var: Path) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": var / "db.sqlite3",
        "OPTIONS": {
            "timeout": 20,
            # A transaction that reads and then writes fails at once if another one wrote between; this one waits.
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL",
        },
        # A file, because the writer and the readers are threads: an in-memory database would lock them out.
        "TEST": {"NAME": var / "test.sqlite3"},
    }


def redis(url: str) -> dict[str, Any]:
    """Return the settings that name Redis, none if `url` is empty. Exits with a line on nonsense."""
    if not url:
        return {}
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        sys.exit("REDIS_URL: give redis://host:port/number, rediss:// or unix:///path, or nothing to do without Redis")
    return {
        "CACHES": {
            "default": _cache("chatsite.cache.Cache", url),
            "sessions": _cache("chatsite.cache.SessionCache", url),
        },
        "CHANNEL_LAYERS": {
            "default": {
                "BACKEND": "channels_redis.core.RedisChannelLayer",
                "CONFIG": {
                    "hosts": [{"address": url, **_patience(LISTEN_SECONDS, tries=0)}],
                    "prefix": "chatstream",
                    "capacity": 2_000,
                },
            }
        },
        "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db",
        "SESSION_CACHE_ALIAS": "sessions",
    }


def _cache(backend: str, url: str) -> dict[str, Any]:
    options = _patience(REDIS_SECONDS, tries=1)
    return {"BACKEND": backend, "LOCATION": url, "KEY_PREFIX": "chatstream", "OPTIONS": options}


def _patience(seconds: float, tries: int) -> dict[str, Any]:
    """Return time-outs of a client of Redis. One more try is for a connection that Redis closed since its last use."""
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    retry = Retry(NoBackoff(), tries) if tries else AsyncRetry(NoBackoff(), 0)
    return {"socket_connect_timeout": REDIS_SECONDS, "socket_timeout": seconds, "retry": retry}
