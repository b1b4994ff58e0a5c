"""Writes frames to one socket: at once while its reader keeps up, otherwise as fast as that reads.

Knows where frames come from and the server's end of a connection; not what the frames say, nor when the socket should
close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

from chat.errors import SocketClosed
from chat.wire.codec import encode
from chat.wire.frames import ServerFrame

AsgiEvent = dict[str, Any]
"""An event of ASGI, or the scope of a connection."""

Send = Callable[[AsgiEvent], Awaitable[None]]
Frames = Callable[[], Iterable[ServerFrame]]

SOCKET = "chat.socket"
"""Key of a scope under which a server may offer its end of the connection, a `DirectSocket`."""

AT_ONCE = 4 * 1024
"""Bytes of frames that are written to the socket together."""


class DirectSocket(Protocol):
    """The server's end of a connection: what ASGI's `send` does not tell, and without its detours."""

    writable: asyncio.Event
    """Clear while the socket's reader lags behind.

    Waiting costs nothing: a watcher is a place in a transcript, what it was not sent yet is stored once.
    """

    def send_texts(self, texts: list[bytes]) -> None:
        """Write frames of text, in UTF-8, now; do nothing when the socket is closed."""

    def answered(self) -> None:
        """Take note that one of its frames was answered; a server may read no more while many were not."""


class FrameWriter:
    """Sends replies, and the frames that are due. Without a DirectSocket everything goes through ASGI's `send`.

    `frames` gives what is due now; whoever has something there calls `wake`.
    """

    def __init__(self, scope: AsgiEvent, send: Send, frames: Frames) -> None:
        self._frames = frames
        self._socket: DirectSocket | None = scope.get(SOCKET)
        self._send = send
        self._due = asyncio.Event()
        self._delivering = False
        self._over: Callable[[], bool] = lambda: False

    async def reply(self, frame: ServerFrame) -> None:
        """Send a frame as soon as the reader has room for it. Raises SocketClosed."""
        if self._socket is not None:
            await self._socket.writable.wait()
        await self._write(frame)

    def answered(self) -> None:
        """Take note that one frame of the client was answered."""
        if self._socket is not None:
            self._socket.answered()

    def end(self) -> None:
        """Hold nothing of the connection any more: it is gone."""
        self._frames, self._socket, self._over = tuple, None, lambda: False

    async def close(self, code: int) -> None:
        await self._send({"type": "websocket.close", "code": code})

    def wake(self) -> None:
        """Send what may be due when the loop comes round, by a task only if it may have to wait."""
        if self._socket is None or not self._socket.writable.is_set():
            self._due.set()
        elif not self._delivering:
            self._delivering = True
            asyncio.get_running_loop().call_soon(self._deliver, self._socket)

    async def forward(self, over: Callable[[], bool]) -> None:
        """Send what is due until it is `over()`, which is looked at whenever everything was sent."""
        self._over = over
        while True:
            await self._due.wait()
            self._due.clear()
            if self._socket is None:
                for frame in self._frames():
                    await self._write(frame)
            else:
                await self._socket.writable.wait()
                self._deliver(self._socket)
            if over():
                return

    def _deliver(self, socket: DirectSocket) -> None:
        """Send what is due, as long as the socket takes it; `forward` does the rest."""
        self._delivering = False
        texts: list[bytes] = []
        size = 0
        for frame in self._frames():
            texts.append(encode(frame))
            size += len(texts[-1])
            if size >= AT_ONCE:
                socket.send_texts(texts)
                texts, size = [], 0
                if not socket.writable.is_set():  # before the next frame is made, not after
                    self._due.set()
                    return
        if texts:
            socket.send_texts(texts)
        if self._over():
            self._due.set()

    async def _write(self, frame: ServerFrame) -> None:
        if self._socket is not None:
            self._socket.send_texts([encode(frame)])
            return
        try:
            await self._send({"type": "websocket.send", "text": encode(frame).decode()})
        except Exception as error:  # servers differ in what they raise between a close and its `disconnect`
            raise SocketClosed from error
