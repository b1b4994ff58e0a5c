"""Extends daphne's server with what this site needs: a start, an end in order, and an exit code.

Told to stop, it listens no more, has the site drain while its connections live on, closes those that are left, and
leaves nothing running. A second signal kills it. Knows connections and processes; what is served is `chatsite.asgi`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server as DaphneServer
from daphne.server import twisted_loop
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred

from chat.wire.frames import SERVICE_RESTART
from chat.wire.writer import SOCKET
from chatsite.server.requests import Channel
from chatsite.server.sockets import ChatSocket
from llm.service.watchdog import notify

logger = logging.getLogger(__name__)

MAX_FRAME = 256 * 1024
"""Bytes daphne takes in one frame; the consumer refuses what is above 64 KiB with a word, up to here."""

HANDSHAKE_SECONDS = 60.0
"""How long a socket may take to open: after a restart a thousand pages come at once, and each can wait its turn."""

PING_SECONDS = 8
"""Seconds between two pings to a silent socket: more than one of them in `ChatSocket.SILENCE`."""

CLOSING_SECONDS = 10.0
"""How long a closed socket's last bytes may take to be read and its own close frame to come."""

LAST_SECONDS = 2.0
"""How long connections have for their last words when the time to drain is up."""

APPLICATION_SECONDS = 10.0
"""How long a cancelled connection may take to clean up when the server ends."""

CHECK_SECONDS = 2.0
"""Seconds between two looks at what each connection waits for."""


class Server(DaphneServer):
    """Runs `on_start(address)` as a task of its loop once the port is bound.

    At its end it runs `on_drain(drain_seconds)` beside the connections, and `on_stop()` after them. The body of a
    request has at most `max_body` bytes.
    """

    def __init__(
        self,
        application: Any,
        *,
        host: str,
        port: int,
        on_start: Callable[[str], Awaitable[None]],
        on_drain: Callable[[float], Awaitable[None]],
        on_stop: Callable[[], Awaitable[None]],
        drain_seconds: float,
        max_body: int,
        **options: Any,
    ) -> None:
        self.exit_code = 0
        self.max_body = max_body
        self._host = host
        self._on_start = on_start
        self._on_drain = on_drain
        self._on_stop = on_stop
        self._drain_seconds = drain_seconds
        self._ports: list[Any] = []
        self._start: asyncio.Task[None] | None = None
        super().__init__(
            application,
            endpoints=build_endpoint_description_strings(host=host, port=port),
            websocket_max_message_size=MAX_FRAME,
            websocket_max_frame_size=MAX_FRAME,
            websocket_connect_timeout=HANDSHAKE_SECONDS,
            websocket_handshake_timeout=HANDSHAKE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=0,  # ChatSocket knows better
            ready_callable=self._ready,
            server_name="chatstream",
            **options,
        )

    def _ready(self) -> None:
        self.http_factory.protocol = Channel
        self.ws_factory.protocol = ChatSocket
        self.ws_factory.setProtocolOptions(closeHandshakeTimeout=CLOSING_SECONDS)

    def create_application(self, protocol: Any, scope: dict[str, Any]) -> Any:
        if isinstance(protocol, ChatSocket):
            scope[SOCKET] = protocol
        return super().create_application(protocol, scope)

    def timeout_checker(self) -> None:
        """Look what each connection waits for. One that cannot be looked at does not keep the others from it."""
        for protocol in list(self.connections):
            try:
                protocol.check_timeouts()
            except Exception:
                logger.exception("A connection could not be checked")
        reactor.callLater(CHECK_SECONDS, self.timeout_checker)

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
        self._ports.append(port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._start = twisted_loop.create_task(self._run_start(f"http://{host}:{port.getHost().port}"))

    def listen_error(self, failure: Any) -> None:
        print(f"Cannot listen on {self._host}: {failure.getErrorMessage()}")  # noqa: T201 the operator's terminal
        self.fail(1)

    def fail(self, exit_code: int) -> None:
        """Stop with this exit code."""
        self.exit_code = exit_code
        self.stop()

    def kill_all_applications(self) -> Deferred[None]:
        """End all connections. daphne calls this before the reactor stops, and waits for what it returns."""
        return Deferred.fromFuture(asyncio.ensure_future(self._shut_down(), loop=twisted_loop))

    async def _run_start(self, address: str) -> None:
        await self._on_start(address)

    async def _shut_down(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # a second one kills
        notify("STOPPING=1")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_seconds
        for port in self._ports:
            await maybeDeferred(port.stopListening).asFuture(loop)
        await self._on_drain(self._drain_seconds)
        await self._applications_end(max(deadline, loop.time() + LAST_SECONDS))
        for protocol in self.connections:
            if isinstance(protocol, ChatSocket):
                protocol.serverClose(SERVICE_RESTART)
        await _ended(self._applications())
        await self._on_stop()
        # a task that is left pending can crash the interpreter as it ends (seen on Python 3.11)
        await _ended(asyncio.all_tasks() - {asyncio.current_task()})

    async def _applications_end(self, deadline: float) -> None:
        """Wait until no connection has anything left to do, those that are still being made included."""
        loop = asyncio.get_running_loop()
        while (running := self._applications()) and (left := deadline - loop.time()) > 0:
            await asyncio.wait(running, timeout=left)

    def _applications(self) -> set[asyncio.Task[None]]:
        # missing in a connection that is just being made, or whose application has ended
        found = {each["application_instance"] for each in self.connections.values() if "application_instance" in each}
        return {task for task in found if not task.done()}


async def _ended(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=APPLICATION_SECONDS)
