"""A PostgreSQL database and a Redis of a test's own: the database is dropped, the server ended with the module."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
import redis

POSTGRESQL = "postgresql://postgres@127.0.0.1:5432"
"""Where databases may be made and dropped."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The address of an empty database."""
    name = f"chat_{uuid4().hex[:12]}"
    try:
        with psycopg.connect(f"{POSTGRESQL}/postgres", connect_timeout=2, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{name}"')
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL at {POSTGRESQL}: {str(error).splitlines()[0]}")
    yield f"{POSTGRESQL}/{name}"
    with psycopg.connect(f"{POSTGRESQL}/postgres", autocommit=True) as server:
        for made in (name, f"test_{name}"):  # the second by a pytest that was started for it
            server.execute(f'DROP DATABASE IF EXISTS "{made}" WITH (FORCE)')


class Redis:
    """A server on a port of its own that keeps nothing: stopped and started, it has forgotten everything."""

    def __init__(self) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = tempfile.mkdtemp(prefix="redis-")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder)
        self._process = subprocess.Popen(
            ["redis-server", *options], stdout=subprocess.DEVNULL, start_new_session=True, env=os.environ
        )
        with redis.Redis.from_url(self.url) as client:
            deadline = time.monotonic() + 10
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline, "Redis does not start"
                    time.sleep(0.02)

    def forget(self) -> None:
        """Lose everything, as after a fail-over; connections stay."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="module")
def own_redis() -> Iterator[Redis]:
    """A running Redis."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server")
    server = Redis()
    server.start()
    yield server
    server.remove()
