"""Says where an llm service listens: at a unix socket in `var`, or at LLM_SERVICE (`tcp://host:port`, `unix:/path`)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from llm.conf import Settings
from llm.errors import ConfigurationError
from llm.service import sockets

LONGEST = 100
"""Bytes of a unix socket's longest path: 108 on Linux, 104 on macOS, one of them the final NUL."""

CONNECT_SECONDS = 10.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Address(msgspec.Struct, frozen=True):
    """The address of a service: a unix socket's path, or a host and a port."""

    path: Path | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path is not None else f"tcp://{self.host}:{self.port}"

    async def connect(self) -> Streams:
        """Connect to the service. Raises OSError if nobody listens; TimeoutError, which is one, if nobody answers."""
        async with asyncio.timeout(CONNECT_SECONDS):
            if self.path is not None:
                return await asyncio.open_unix_connection(self.path)
            streams = await asyncio.open_connection(self.host, self.port)
        sockets.notice_lost_peers(streams[1].get_extra_info("socket"))
        return streams

    @contextlib.asynccontextmanager
    async def listen(self, accept: Accept) -> AsyncIterator[None]:
        """Listen within the context and hand connections to `accept`. Only its owner may use a unix socket.

        Raises OSError, whose text is one line. A unix socket that a dead process of the same user left is replaced;
        where anything else is, or somebody listens, it stays.
        """
        if self.path is None:
            server = await asyncio.start_server(accept, self.host, self.port)
            for listening in server.sockets:
                sockets.notice_lost_peers(listening)  # those that are accepted inherit it
            try:
                yield
            finally:
                server.close()
            return
        bound = sockets.bound(self.path)
        inode = self.path.stat().st_ino
        try:
            server = await asyncio.start_unix_server(accept, sock=bound)
            try:
                yield
            finally:
                server.close()
        finally:
            with contextlib.suppress(FileNotFoundError):
                if self.path.stat().st_ino == inode:  # else somebody has put another one there
                    self.path.unlink()
            bound.close()


def parse(text: str) -> Address:
    """Return the address in LLM_SERVICE. Raises ConfigurationError."""
    problem = f"LLM_SERVICE={text}: give tcp://host:port or unix:/path"
    if text.startswith("unix:/"):
        return Address(path=Path(text.removeprefix("unix:")))
    try:
        parts = urlsplit(text)
        if parts.scheme == "tcp" and parts.hostname and parts.port is not None:
            return Address(host=parts.hostname, port=parts.port)
    except ValueError as error:
        raise ConfigurationError(problem) from error
    raise ConfigurationError(problem)


def service_address(settings: Settings) -> Address:
    """Return the address of this site's service. Raises ConfigurationError."""
    if not settings.service:
        return Address(path=_own_socket(settings))
    address = parse(settings.service)
    if address.path is None and not settings.service_token:
        raise ConfigurationError(f"LLM_SERVICE={settings.service}: a service behind TCP needs LLM_SERVICE_TOKEN")
    return address


def _own_socket(settings: Settings) -> Path:
    """Return `var/llm.sock`, or a short path for this user and this `var` if that is too long for a socket."""
    path = settings.var_path / "llm.sock"
    if len(os.fsencode(path)) <= LONGEST:
        return path
    digest = hashlib.sha256(os.fsencode(settings.var_path)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"chatstream-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder / "llm.sock"
