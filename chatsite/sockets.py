"""A WebSocket at the server's end: how fast it is read, whether anyone is still there, how it closes.

daphne's `send` never waits and buffers without bound, and its own pings take a slow reader for a dead one, because
they wait behind the data. Knows TCP and the protocol's frames, not what the application says in them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from typing import Any

from daphne.ws_protocol import WebSocketProtocol

logger = logging.getLogger(__name__)

SERVICE_RESTART = 1012

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_ACKED = struct.Struct("=120xQ16xI")
"""Of Linux's `struct tcp_info`: bytes the peer has acknowledged, and bytes that were never sent yet."""


class ChatSocket(WebSocketProtocol):
    """daphne's protocol, with back-pressure and a sense for the dead.

    `writable` is clear while more is buffered than `BUFFER`; whoever sends should wait for it. A socket without a sign
    of life for `SILENCE` seconds is dropped. Signs of life are anything that arrives (an answer to a ping, at least),
    and, while data waits to be sent, that some of it is acknowledged: it waits because the peer's own buffer is full,
    so an acknowledgement means that somebody reads.
    """

    BUFFER = 4 * 1024
    KERNEL_BUFFER = 64 * 1024
    SILENCE = 20.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writable = asyncio.Event()
        self.writable.set()
        self._life = time.monotonic()
        self._acked = 0
        self._waited = False

    def onOpen(self) -> None:
        super().onOpen()
        self.transport.bufferSize = self.BUFFER
        self.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.KERNEL_BUFFER)
        self.unregisterProducer()  # the HTTP channel that the connection began with
        self.registerProducer(self, True)
        self._life = time.monotonic()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.writable.set()  # nothing will, after this
        super().onClose(wasClean, code, reason)

    def dataReceived(self, data: bytes) -> None:
        self._life = time.monotonic()
        super().dataReceived(data)

    def serverClose(self, code: int | None = None) -> None:
        if code == SERVICE_RESTART:  # an application's `sendClose` takes 1000 and 3000 to 4999 only
            if self.state == self.STATE_OPEN:
                self.sendCloseFrame(code=code)
        else:
            super().serverClose(code)

    def check_timeouts(self) -> None:
        """Called by the server every two seconds."""
        super().check_timeouts()
        if self.state != self.STATE_OPEN:
            return
        acked, unsent = self._tcp()
        if self._waited and acked > self._acked:
            self._life = time.monotonic()
        self._acked = acked
        self._waited = unsent > 0 or not self.writable.is_set()
        if time.monotonic() - self._life > self.SILENCE:
            logger.info("A socket that nobody reads was dropped")
            self.dropConnection(abort=True)

    def _tcp(self) -> tuple[int, int]:
        """Bytes acknowledged and bytes not sent; where the system does not say, nothing ever is."""
        if _TCP_INFO is None:
            return 0, 0
        try:
            return _ACKED.unpack(self.transport.socket.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _ACKED.size))
        except (OSError, struct.error):
            return 0, 0

    # What the transport calls as it fills and empties

    def pauseProducing(self) -> None:
        self.writable.clear()

    def resumeProducing(self) -> None:
        self.writable.set()

    def stopProducing(self) -> None:
        self.writable.set()
