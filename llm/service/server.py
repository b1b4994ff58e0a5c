"""Puts the GenerationController and its backend behind a socket, in a process of its own.

`python -m llm.service` reads its settings as JSON from standard input, prints one line (`listening`, or why it cannot)
and serves until 5 s after its last client left: `llm.service.launch` starts it so. `manage.py llm_service` runs one
that stays. The server knows nothing of Django; the frames are those of `llm.service.wire`. Exit code 78 (os.EX_CONFIG)
says that starting it again would not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TextIO, cast

import msgspec

from llm.backends.base import Backend
from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.errors import ConfigurationError, one_line, panics_raised
from llm.events import Status
from llm.service import wire
from llm.service.address import Address, service_address
from llm.service.connection import Connection
from llm.service.watchdog import Watchdog, notify

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
"""Seconds that the service stays after its last client left: long enough for a site that restarts."""
FIRST_CLIENT_SECONDS = 60.0
END_SECONDS = 2.0
"""Seconds at the end that clients have to take what was sent to them, and that the backend has to leave its work."""
MAX_STRANGERS = 64
"""Connections that have not logged in yet. Of more the oldest is cut off: who knows the token says so at once."""


def make_backend(settings: Settings) -> Backend:
    if settings.backend == "synthetic":
        from llm.backends.synthetic import SyntheticBackend

        return SyntheticBackend(
            tokens=settings.synthetic_tokens,
            rate=settings.synthetic_rate,
            max_new_tokens=settings.max_new_tokens,
            places=settings.num_of_concurrent_executions,
            kv_tokens=settings.kv_tokens,
        )
    from llm.backends.local import LocalBackend

    return LocalBackend(settings)


class Service:
    """The socket, the clients, and the end of one service. With `stays` it does not end for want of clients."""

    def __init__(self, settings: Settings, address: Address, *, stays: bool = False) -> None:
        self._settings = settings
        self._address = address
        self._stays = stays
        self.controller = GenerationController(make_backend(settings), settings)
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}
        self._handlers: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._idle: asyncio.TimerHandle | None = None

    async def run(self, listening: Callable[[], None]) -> int:
        """Listen, load and serve; return the exit code."""
        async with self._address.listen(self._accept):
            listening()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
            self.controller.on_status(self._tell_status)
            self._leave_in(FIRST_CLIENT_SECONDS)
            loading = asyncio.create_task(self._load())
            with self._told_to_systemd():
                code = await self._ended
        await self._part()
        if loading.done():
            await self._close_controller()
        return code

    def stop(self, code: int = 0) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    async def _part(self) -> None:
        """Leave all clients; those that do not take what was sent to them are cut off."""
        for stranger in self._strangers:
            stranger.abort()
        connections = tuple(self._connections)
        for connection in connections:
            connection.close()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=END_SECONDS)
        for connection in connections:
            connection.abort()
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=END_SECONDS)

    async def _close_controller(self) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.controller.aclose()
        except TimeoutError:
            log.warning("The model is in the middle of a step; the process ends all the same")
        except Exception:
            log.exception("The controller could not be closed")

    @contextlib.contextmanager
    def _told_to_systemd(self) -> Iterator[None]:
        """Report to systemd within the context, unless a client started this service: then it is no unit of its own."""
        if not self._stays:
            yield
            return
        watchdog = asyncio.create_task(Watchdog(self.controller).run())
        try:
            yield
        finally:
            watchdog.cancel()
            notify("STOPPING=1")

    async def _load(self) -> None:
        try:
            with panics_raised():
                await self.controller.load()
        except ConfigurationError as error:
            self._failed(str(error))
        except Exception:
            log.exception("the model could not be loaded")
            self.stop(1)

    def _failed(self, reason: str) -> None:
        """End, but not before the process that started this one was told why: it may not have been accepted yet."""
        if self._stays:
            sys.stderr.write(f"Cannot start: {reason}\n")
        if self._stays or self._connections:
            self.stop(os.EX_CONFIG)
        else:
            self._leave_in(IDLE_SECONDS, os.EX_CONFIG)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = cast("asyncio.Task[None]", asyncio.current_task())
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        connection = Connection(self.controller, reader, writer, self._retire)
        if await self._knows(connection):
            await self._serve(connection)
        else:
            connection.close()

    async def _knows(self, connection: Connection) -> bool:
        """Let a client in, or not. However many come and say nothing, those that can say something are heard."""
        self._strangers[connection] = None
        if len(self._strangers) > MAX_STRANGERS:
            log.warning("%d clients have not logged in yet; the oldest is cut off", len(self._strangers))
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.abort()
        try:
            return await connection.knows(self._settings.service_token)
        finally:
            self._strangers.pop(connection, None)

    async def _serve(self, connection: Connection) -> None:
        if self._idle is not None:
            self._idle.cancel()
        connection.send(self._hello())
        self._connections.add(connection)
        if self.controller.status.state == "failed":
            self.stop(os.EX_CONFIG)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._leave_in(IDLE_SECONDS)

    def _hello(self) -> wire.Hello:
        return wire.Hello(
            protocol=wire.PROTOCOL,
            fingerprint=self._settings.fingerprint,
            pid=os.getpid(),
            others=len(self._connections),
            model=self.controller.model,
            defaults=self.controller.defaults,
            status=self.controller.status,
        )

    def _retire(self, connection: Connection) -> None:
        """End for a client that needs other settings, unless another client's work would be thrown away."""
        if self._connections == {connection} and not self._stays:
            self.stop()
        connection.close()

    def _leave_in(self, seconds: float, code: int = 0) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if not self._stays or code:
            self._idle = asyncio.get_running_loop().call_later(seconds, self.stop, code)

    def _tell_status(self, status: Status) -> None:
        if status.state == "down":  # a process that was started anew can generate
            self.stop(os.EX_SOFTWARE)
        for connection in self._connections:
            connection.send(wire.StatusChanged(status, self.controller.model, self.controller.defaults))


def _tell_starter(line: str) -> None:
    """Print the one line that `llm.service.launch` reads. Nobody reads further, so later output goes to the log."""
    with contextlib.suppress(BrokenPipeError):  # who started this is gone; others of the site may use it
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _have_stderr() -> None:
    """Open a standard error where this process was given none: the watch over the engine's steps needs one."""
    if cast("TextIO | None", sys.stderr) is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 it stays as long as the process


def run(settings: Settings, address: Address, listening: Callable[[], None], *, stays: bool) -> None:
    """Serve until the end, and leave the process. Raises ConfigurationError or OSError before it listens."""
    _have_stderr()

    async def serve() -> None:
        code = await Service(settings, address, stays=stays).run(listening)
        logging.shutdown()
        os._exit(code)  # a thread that is still loading a model must not hold the process

    asyncio.run(serve())


def main() -> None:
    logging.raiseExceptions = False  # the terminal of whoever started us may be gone
    _have_stderr()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
        run(settings, service_address(settings), lambda: _tell_starter("listening"), stays=False)
    except (msgspec.DecodeError, ConfigurationError) as error:
        _tell_starter(str(error))
        sys.exit(os.EX_CONFIG)
    except OSError as error:
        _tell_starter(one_line(error))
        sys.exit(os.EX_OSERR)
