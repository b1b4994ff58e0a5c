"""Finds the llm service of this site, or starts it: one for all processes that share a `var` folder.

The module knows the socket, the lock and the child process; the client decides what is said over the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from llm.conf import Settings
from llm.errors import ConfigurationError, Unavailable
from llm.service.address import Streams, service_address


class ServiceProcess:
    """The service that this process started. It outlives this process, since others may use it by then."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._exited = threading.Event()
        threading.Thread(target=self._reap, name="llm-service-reaper", daemon=True).start()

    def _reap(self) -> None:
        self._process.wait()
        self._exited.set()

    async def exit_code(self, within: float) -> int | None:
        """Return the exit code, None if the process goes on for longer than `within` seconds."""
        await asyncio.to_thread(self._exited.wait, within)
        return self._process.returncode


async def connect(settings: Settings) -> Streams | None:
    """Return a connection to the running service, None if there is none. Raises ConfigurationError."""
    try:
        return await service_address(settings).connect()
    except (FileNotFoundError, ConnectionRefusedError):
        return None


async def connect_or_start(settings: Settings) -> tuple[Streams, ServiceProcess | None]:
    """Return a connection, and the process if it had to be started. Raises ConfigurationError, Unavailable.

    A service that LLM_SERVICE names is started by the operator, not here.
    """
    if (streams := await connect(settings)) is not None:
        return streams, None
    if settings.service:
        raise Unavailable(f"Nobody listens at {settings.service}.")
    async with _lock(settings.var_path / "llm.lock"):
        if (streams := await connect(settings)) is not None:
            return streams, None
        process = await _start(settings)
        if (streams := await connect(settings)) is not None:
            return streams, process
    raise Unavailable("The model's process ended as it started.")


async def _start(settings: Settings) -> ServiceProcess:
    popen, line = await asyncio.to_thread(_spawn, msgspec.json.encode(settings).decode())
    process = ServiceProcess(popen)
    if line == "listening":
        return process
    if await process.exit_code(within=5) == os.EX_CONFIG:
        raise ConfigurationError(line)
    raise Unavailable("The model's process could not be started; its log says why.")


def _spawn(settings: str) -> tuple[subprocess.Popen[str], str]:
    """Start the service, hand over the settings, and wait for the one line that it prints."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "llm.service"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C in a terminal is meant for the web process; the service ends with its clients
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
    )
    assert popen.stdin is not None  # noqa: S101 it is a pipe
    assert popen.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError), popen.stdin as stdin:
        stdin.write(settings)
    with popen.stdout as stdout:
        return popen, stdout.readline().strip()


@contextlib.asynccontextmanager
async def _lock(path: Path) -> AsyncIterator[None]:
    """Hold the lock that lets only one process of this site start a service at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        await asyncio.to_thread(fcntl.flock, file, fcntl.LOCK_EX)
        yield
