"""daphne's server with what this site needs around it: a start, an end, and an exit code.

Knows sockets and processes; what is served is `chatsite.asgi`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from daphne.endpoints import build_endpoint_description_strings
from daphne.server import Server as DaphneServer
from daphne.server import twisted_loop
from twisted.internet.defer import Deferred

MAX_FRAME = 256 * 1024
"""Bytes daphne takes in one frame; the consumer refuses what is above 64 KiB with a word, up to here."""

APPLICATION_SECONDS = 10.0
"""How long a cancelled connection may take to clean up when the server ends."""


class Server(DaphneServer):
    """Runs `on_start(address)` as a task of its loop once the port is bound, and `on_stop()` before it ends."""

    def __init__(
        self,
        application: Any,
        *,
        host: str,
        port: int,
        on_start: Callable[[str], Awaitable[None]],
        on_stop: Callable[[], Awaitable[None]],
        **options: Any,
    ) -> None:
        self.exit_code = 0
        self._host = host
        self._on_start = on_start
        self._on_stop = on_stop
        self._start: asyncio.Task[None] | None = None
        super().__init__(
            application,
            endpoints=build_endpoint_description_strings(host=host, port=port),
            websocket_max_message_size=MAX_FRAME,
            websocket_max_frame_size=MAX_FRAME,
            server_name="chatstream",
            **options,
        )

    def listen_success(self, port: Any) -> None:
        super().listen_success(port)
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
        """daphne's own hook before the reactor stops, which waits for what this returns."""
        return Deferred.fromFuture(asyncio.ensure_future(self._shut_down(), loop=twisted_loop))

    async def _run_start(self, address: str) -> None:
        await self._on_start(address)

    async def _shut_down(self) -> None:
        await self._on_stop()
        # missing in a connection that is just being made
        tasks = [each["application_instance"] for each in self.connections.values() if "application_instance" in each]
        tasks += [] if self._start is None else [self._start]
        for task in tasks:
            task.cancel()
        if tasks:  # a task that is left pending can crash the interpreter as it ends (seen on Python 3.11)
            await asyncio.wait(tasks, timeout=APPLICATION_SECONDS)
