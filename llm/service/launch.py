"""Finds the llm service of this site, or starts it: one for all processes that share a `var` folder.

The module knows the socket, the lock and the child process; the client decides what is said over the socket.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from typing import IO

import msgspec

from llm.conf import Settings
from llm.errors import ConfigurationError, Unavailable, one_line
from llm.service.address import Streams, service_address

LOADING_PATIENCE = 10
"""Times LLM_STALL_SECONDS that a service which loads may be silent: importing torch holds the GIL for seconds."""
LOCK_EVERY = 0.1
"""Seconds between two looks whether another process has started the service."""


class NobodyListens(Unavailable):
    """Raised when nobody listens at LLM_SERVICE."""


class ServiceProcess:
    """The service that this process started. It outlives this process, since others may use it by then."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
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

    A service that LLM_SERVICE names is started by the operator, not here: NobodyListens is raised.
    """
    if settings.service:
        return await _named(settings), None
    if (streams := await connect(settings)) is not None:
        return streams, None
    settings.var_path.mkdir(parents=True, exist_ok=True)
    with (settings.var_path / "llm.lock").open("w") as lock:
        while not _locked(lock):  # whoever holds it may be stopped, and its service live
            await asyncio.sleep(LOCK_EVERY)
            if (streams := await connect(settings)) is not None:
                return streams, None
        if (streams := await connect(settings)) is not None:
            return streams, None
        process = await _start(settings)
        if (streams := await connect(settings)) is not None:
            return streams, process
    raise Unavailable("The model's process ended as it started.")


async def _named(settings: Settings) -> Streams:
    """Return a connection to the service that LLM_SERVICE names. Raises NobodyListens."""
    try:
        return await service_address(settings).connect()
    except OSError as error:
        raise NobodyListens(f"Nobody answers at {settings.service} ({one_line(error)}).") from error


async def _start(settings: Settings) -> ServiceProcess:
    """Start the service and return it once it listens. Raises ConfigurationError, Unavailable."""
    popen = _spawn(msgspec.json.encode(settings))  # milliseconds; from a thread it could get lost by a cancel
    process = ServiceProcess(popen)
    assert popen.stdout is not None  # noqa: S101 it is a pipe
    patience = LOADING_PATIENCE * settings.stall_seconds
    try:
        line = await _first_line(popen.stdout, patience)
    except TimeoutError:
        popen.kill()
        raise Unavailable(f"The model's process did not say within {patience:.0f} s that it listens.") from None
    if line == "listening":
        return process
    if await process.exit_code(within=5) == os.EX_CONFIG:
        raise ConfigurationError(line)
    raise Unavailable(f"The model's process could not be started ({line or 'its log says why'}).")


def _spawn(settings: bytes) -> subprocess.Popen[bytes]:
    """Start the service with the settings as its standard input."""
    with tempfile.TemporaryFile() as given:  # no pipe: that is filled only as fast as it is read
        given.write(settings)
        given.seek(0)
        return subprocess.Popen(
            [sys.executable, "-m", "llm.service"],
            stdin=given,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in a terminal is meant for the web process; this ends with its clients
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        )


async def _first_line(pipe: IO[bytes], seconds: float) -> str:
    """Return the first line that comes through `pipe`, and close it; an empty string if none comes any more.

    Raises TimeoutError if there is neither a line nor an end within so many seconds.
    """
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    try:
        async with asyncio.timeout(seconds):
            return (await reader.readline()).decode(errors="replace").strip()
    finally:
        transport.close()
        pipe.close()  # the transport does so in the next turn of a loop that may be ending


def _locked(file: IO[str]) -> bool:
    """Take the lock that lets only one process of this site start a service at a time. Return False if it is held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a thread that waits for it could not be told to stop
    except BlockingIOError:
        return False
    return True
