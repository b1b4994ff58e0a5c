"""Databases, caches and checks, as the addresses in the environment make them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from chatsite import backends
from chatsite.cache import Cache, SessionCache
from tests.server import ROOT
from tests.site.test_settings import environment
from tests.stores import Redis

POSTGRESQL = {"DATABASE_URL": "postgresql://ada:s%40crets@db.example.org:6543/chat"}
REDIS = {"REDIS_URL": "redis://redis.example.org:6379/1"}


def check(var: Path, **values: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "check", "--fail-level", "WARNING"]
    return subprocess.run(command, cwd=ROOT, env=environment(var, **values), capture_output=True, text=True)


def test_a_postgresql_has_a_pool_whose_connections_are_checked(tmp_path: Path) -> None:
    found = backends.database(POSTGRESQL["DATABASE_URL"], tmp_path)
    assert (found["USER"], found["PASSWORD"], found["HOST"], found["PORT"], found["NAME"]) == (
        "ada",
        "s@crets",
        "db.example.org",
        6543,
        "chat",
    )
    assert found["ENGINE"] == "django.db.backends.postgresql"
    assert found["CONN_HEALTH_CHECKS"]
    assert not found["CONN_MAX_AGE"]
    assert found["OPTIONS"]["pool"]
    own = backends.database(f"{POSTGRESQL['DATABASE_URL']}?options=-c%20lock_timeout%3D9s", tmp_path)
    assert own["OPTIONS"]["options"] == "-c lock_timeout=9s"


def test_nobody_waits_long_for_a_row_that_a_stopped_process_holds(postgresql: str, tmp_path: Path) -> None:
    options = backends.database(postgresql, tmp_path)["OPTIONS"]["options"]
    shorter = options.replace("5s", "50ms").replace("30s", "300ms")
    with (
        contextlib.closing(psycopg.connect(postgresql, options=shorter)) as stopped,
        psycopg.connect(postgresql, options=shorter, autocommit=True) as other,
    ):
        stopped.execute("CREATE TABLE held (id int)")
        stopped.execute("INSERT INTO held VALUES (1)")
        stopped.commit()
        stopped.execute("SELECT * FROM held FOR UPDATE")
        with pytest.raises(psycopg.OperationalError, match="lock timeout"):
            other.execute("UPDATE held SET id = 2")
        other.execute("SET lock_timeout = '10s'")
        other.execute("UPDATE held SET id = 2")  # as soon as the stopped one's transaction has been ended


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"DATABASE_URL": "mysql://root:secret@localhost/chat"}, "DATABASE_URL: give postgresql://"),
        ({"DATABASE_URL": "chat"}, "DATABASE_URL: give postgresql://"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL: give redis://"),
        (POSTGRESQL | REDIS, "chatsite.E001"),
        (REDIS, "chatsite.W001"),
    ],
)
def test_what_cannot_work_is_a_line_for_the_operator(tmp_path: Path, values: dict[str, str], words: str) -> None:
    done = check(tmp_path, **values)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_several_processes_need_no_more_than_this(tmp_path: Path) -> None:
    done = check(tmp_path, SECRET_KEY="of all, and long enough to be one: 0123456789", **POSTGRESQL, **REDIS)
    assert done.returncode == 0, done.stderr


def made(backend: type[Cache], url: str) -> Cache:
    settings: dict[str, Any] = backends.redis(url)["CACHES"]["default"]
    return backend(url, {"KEY_PREFIX": settings["KEY_PREFIX"], "OPTIONS": settings["OPTIONS"]})


@pytest.fixture
def a_redis(own_redis: Redis) -> Iterator[Redis]:
    """It is started again after a test that ended it."""
    yield own_redis
    own_redis.kill()
    own_redis.start()


def test_a_cache_whose_redis_is_away_misses_and_comes_back(a_redis: Redis) -> None:
    cache = made(Cache, a_redis.url)
    cache.set("a", {"b": 1})
    assert (cache.get("a"), "a" in cache, cache.delete("c")) == ({"b": 1}, True, False)
    a_redis.kill()
    began = time.monotonic()
    cache.set("a", 2)
    assert (cache.get("a", "nothing"), "a" in cache, cache.delete("a")) == ("nothing", False, False)
    assert time.monotonic() - began < 1
    a_redis.start()
    cache.set("a", 3)
    assert cache.get("a") == 3


async def test_it_does_for_async_callers_too(a_redis: Redis) -> None:
    cache = made(Cache, a_redis.url)
    await cache.aset("a", 1)
    a_redis.kill()
    assert await cache.aget("a") is None


def test_a_session_is_copied_for_a_minute_at_most(a_redis: Redis) -> None:
    cache = made(SessionCache, a_redis.url)
    for timeout in (10, 365 * 24 * 3600, None):
        cache.set("session", {}, timeout)
        with redis.Redis.from_url(a_redis.url) as client:
            (key,) = client.keys("*session")
            assert 0 < client.ttl(key) <= min(timeout or 60, 60)


def test_caches_of_all_requests_share_their_connections(a_redis: Redis) -> None:
    for _ in range(50):
        made(Cache, a_redis.url).get("a")
    with redis.Redis.from_url(a_redis.url) as client:
        assert len(client.client_list()) <= 2
