"""The llm service: a process of its own with the GenerationController and its backend behind a local socket.

`python -m llm.service` reads its settings as JSON from standard input, prints one line (`listening`, or why it cannot)
and then serves until 5 s after its last client left. It knows nothing of Django. Web processes start and find it
through `llm.client`; the frames are those of `llm.wire`. Exit code 78 (os.EX_CONFIG) says that starting it
again would not help.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import cast

import msgspec

from llm import wire
from llm.address import socket_path
from llm.backends.base import Backend
from llm.conf import Settings
from llm.controller import GenerationController
from llm.errors import ConfigurationError, Overloaded, RequestError
from llm.events import Event, Finished, Status
from llm.generation import Generation

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
"""How long it stays after its last client left: long enough for a site that restarts."""
FIRST_CLIENT_SECONDS = 60.0


def make_backend(settings: Settings) -> Backend:
    if settings.backend == "synthetic":
        from llm.backends.synthetic import SyntheticBackend

        return SyntheticBackend(
            tokens=settings.synthetic_tokens, rate=settings.synthetic_rate, max_new_tokens=settings.max_new_tokens
        )
    from llm.backends.local import LocalBackend

    return LocalBackend(settings)


class Connection:
    """One client and the generations it asked for; they end with it."""

    def __init__(self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._service = service
        self._controller = service.controller
        self._reader = reader
        self._writer = writer
        self._generations: dict[int, Generation] = {}
        self._pending: list[tuple[int, Event]] = []

    async def serve(self) -> None:
        """Until the client is gone."""
        try:
            async for frame in wire.read_frames(self._reader, wire.client_frames):
                await self._handle(frame)
        except msgspec.DecodeError:
            log.exception("a client sent what is no frame")
        finally:
            for generation in self._generations.values():
                generation.cancel()
            self.close()

    def send(self, frame: wire.ServiceFrame) -> None:
        if not self._writer.is_closing():
            self._writer.write(wire.encode(frame))

    def close(self) -> None:
        self._writer.close()

    async def _handle(self, frame: wire.ClientFrame) -> None:
        match frame:
            case wire.Admit(id=number, visitor=visitor):
                await self._admit(number, visitor)
            case wire.Run(id=number, request=request):
                self._generations[number].run_into(request, lambda event: self._push(number, event))
            case wire.Cancel(id=number):
                self._cancel(number)
            case wire.GetStats(id=number):
                self.send(wire.StatsReply(number, await self._controller.stats()))
            case wire.Ping():
                self.send(wire.Pong())
            case wire.Retire():
                self._service.retire(self)

    async def _admit(self, number: int, visitor: str) -> None:
        try:
            self._generations[number] = await self._controller.admit(visitor)
        except RequestError as error:
            size = error.queue_size if isinstance(error, Overloaded) else 0
            self.send(wire.Refused(number, error.code, error.message, error.retry_after, size))
        else:
            self.send(wire.Admitted(number))

    def _cancel(self, number: int) -> None:
        generation = self._generations.get(number)
        if generation is not None:
            generation.cancel()
            if generation.task is None:  # it will not be run, so no Finished takes it out
                del self._generations[number]

    def _push(self, number: int, event: Event) -> None:
        if isinstance(event, Finished):
            del self._generations[number]
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append((number, event))

    def _flush(self) -> None:
        events, self._pending = self._pending, []
        self.send(wire.Events(events))


class Service:
    """The socket, the clients, and the end."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.controller = GenerationController(make_backend(settings), settings)
        self._connections: set[Connection] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._idle: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Listen, load, serve; returns the exit code."""
        path = socket_path(self._settings)
        path.unlink(missing_ok=True)  # whoever started this process holds the lock: nobody lives there
        server = await asyncio.start_unix_server(self._accept, path)
        path.chmod(0o600)
        inode = path.stat().st_ino
        _tell_starter("listening")
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        self.controller.on_status(self._tell_status)
        self._leave_in(FIRST_CLIENT_SECONDS)
        loading = asyncio.create_task(self._load())
        code = await self._ended
        server.close()
        _unlink_own(path, inode)
        for connection in tuple(self._connections):
            connection.close()
        if self._handlers:
            await asyncio.wait(self._handlers)
        if loading.done():
            await self.controller.aclose()
        return code

    def stop(self, code: int = 0) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    def retire(self, connection: Connection) -> None:
        """End for a client that needs other settings; another client's work is not thrown away for it."""
        if self._connections == {connection}:
            self.stop()
        connection.close()

    async def _load(self) -> None:
        try:
            await self.controller.load()
        except ConfigurationError:
            self._failed()
        except Exception:
            log.exception("the model could not be loaded")
            self.stop(1)

    def _failed(self) -> None:
        """End, but not before whoever started this process was told why: it may not have been accepted yet."""
        if self._connections:
            self.stop(os.EX_CONFIG)
        else:
            self._leave_in(IDLE_SECONDS, os.EX_CONFIG)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        handler = cast("asyncio.Task[None]", asyncio.current_task())
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)
        if self._idle is not None:
            self._idle.cancel()
        connection.send(
            wire.Hello(
                protocol=wire.PROTOCOL,
                fingerprint=self._settings.fingerprint,
                pid=os.getpid(),
                others=len(self._connections),
                model=self.controller.model,
                status=self.controller.status,
            )
        )
        self._connections.add(connection)
        if self.controller.status.state == "failed":
            self.stop(os.EX_CONFIG)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._leave_in(IDLE_SECONDS)

    def _leave_in(self, seconds: float, code: int = 0) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(seconds, self.stop, code)

    def _tell_status(self, status: Status) -> None:
        for connection in self._connections:
            connection.send(wire.StatusChanged(status, self.controller.model))


def _unlink_own(path: Path, inode: int) -> None:
    """Remove the socket unless a successor has already put its own there."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


def _tell_starter(line: str) -> None:
    """The one line `llm.launch` reads; nobody reads further, so what follows goes to the log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


async def _serve(settings: Settings) -> None:
    code = await Service(settings).run()
    logging.shutdown()
    os._exit(code)  # a thread that is still loading a model must not hold the process


def main() -> None:
    logging.raiseExceptions = False  # the terminal of whoever started us may be gone
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
        asyncio.run(_serve(settings))
    except (msgspec.DecodeError, ConfigurationError) as error:
        _tell_starter(str(error))
        sys.exit(os.EX_CONFIG)


if __name__ == "__main__":
    main()
