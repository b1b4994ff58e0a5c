"""Extends daphne's end of a WebSocket: how fast it is read, whether anyone is still there, how it closes.

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

from chat.wire.frames import SERVICE_RESTART, TOO_MANY
from chatsite.server.refusals import refusal

logger = logging.getLogger(__name__)

_SHORT, _LONG = struct.Struct(">BBH"), struct.Struct(">BBQ")
"""The head of a frame of text, for lengths of two and of eight bytes."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_ACKED = struct.Struct("=120xQ16xI")
"""Two fields of Linux's `struct tcp_info`: bytes the peer has acknowledged, and bytes that were not sent yet."""


class ChatSocket(WebSocketProtocol):
    """A socket with back-pressure that is dropped when its peer is dead.

    `writable` is clear while more is buffered than `BUFFER`; whoever sends should wait for it. A socket without a sign
    of life for `SILENCE` seconds is dropped. Signs of life are anything that arrives (an answer to a ping, at least),
    and, while data waits to be sent, that some of it is acknowledged: it waits because the peer's own buffer is full,
    so an acknowledgement means that somebody reads.

    A peer that sends more frames than FRAMES at once and FRAMES_A_SECOND after that is closed and read no further; one
    that has UNANSWERED frames waiting for the application is read no further until it has fewer. One that sends frames
    before it is told that there is a socket is dropped: it could not know, and they would be kept without bound.
    """

    BUFFER = 4 * 1024
    KERNEL_BUFFER = 64 * 1024
    SILENCE = 20.0
    FRAMES, FRAMES_A_SECOND = 100, 20
    UNANSWERED = 16

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.writable = asyncio.Event()
        self.writable.set()
        self._life = time.monotonic()
        self._acked = 0
        self._waited = False
        self._allowance = Allowance(self.FRAMES, self.FRAMES_A_SECOND)
        self._unanswered = 0
        self._asked = False

    def onConnect(self, request: Any) -> Any:
        self._asked = True
        return super().onConnect(request)

    def onOpen(self) -> None:
        super().onOpen()
        self.transport.bufferSize = self.BUFFER
        self.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.KERNEL_BUFFER)
        if (channel := self.transport.producer) is not None:  # the HTTP channel that the connection began with
            channel.requests.clear()
            self.unregisterProducer()
        self.registerProducer(self, True)
        self._life = time.monotonic()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.writable.set()  # nothing will, after this
        super().onClose(wasClean, code, reason)

    def connectionLost(self, reason: Any) -> None:
        """End, and drop what leads from the socket back to itself: its memory need not wait for a full collection."""
        super().connectionLost(reason)
        self.is_closed = None

    def dataReceived(self, data: bytes) -> None:
        self._life = time.monotonic()
        if self.state == self.STATE_CONNECTING and self._asked:
            self.dropConnection(abort=True)
        else:
            super().dataReceived(data)

    def send_texts(self, texts: list[bytes]) -> None:
        if self.state == self.STATE_OPEN:
            self.sendData(b"".join([part for text in texts for part in (_text_head(len(text)), text)]))

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write all bytes to the peer, at once if nothing waits before them, which spares two rounds of the loop."""
        transport = self.transport
        if not transport.connected or transport.dataBuffer or transport._tempDataBuffer:
            transport.write(data)
            return
        written = transport.writeSomeData(data)
        if not isinstance(written, int):
            transport.write(data)  # finds the connection lost, and ends it
        elif written < len(data):
            transport.write(data[written:])

    # What arrives

    def onFrameBegin(self) -> None:
        """Count each frame of the peer, of whatever kind, also while the socket is closing."""
        if not self._allowance.take():
            if self.state == self.STATE_OPEN:
                logger.info("A socket that sent too many frames was closed")
                self.sendClose(code=TOO_MANY, reason="too many frames")
            self.transport.pauseProducing()
            self.data = b""
        super().onFrameBegin()

    def onMessageFrameData(self, payload: bytes) -> None:
        """Keep what has come of a frame in one piece, however small the pieces are that it comes in."""
        if self.frame_data:
            self.frame_data[0] += payload
        else:
            super().onMessageFrameData(bytearray(payload))

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.state != self.STATE_OPEN:
            return
        super().onMessage(payload, isBinary)
        self._unanswered += 1
        if self._unanswered == self.UNANSWERED:
            self.transport.pauseProducing()

    def answered(self) -> None:
        """Take note that the application is done with one frame."""
        self._unanswered -= 1
        if self._unanswered == self.UNANSWERED - 1 and self.state == self.STATE_OPEN:
            self.transport.resumeProducing()

    def onPing(self, payload: bytes) -> None:
        if self.writable.is_set():  # else it does not read what it asks for
            super().onPing(payload)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        self.sendData(refusal(code, headers=dict(responseHeaders or ())))

    def handle_exception(self, exception: Exception) -> None:
        if self.state == self.STATE_CONNECTING:
            self.failHandshake("the application failed", 500)
        else:
            self.sendCloseFrame(code=1011)

    def serverClose(self, code: int | None = None) -> None:
        if code == SERVICE_RESTART:  # an application's `sendClose` takes 1000 and 3000 to 4999 only
            if self.state == self.STATE_OPEN:
                self.sendCloseFrame(code=code)
        else:
            super().serverClose(code)

    def check_timeouts(self) -> None:
        """Drop a socket that nobody reads. The server calls this every two seconds."""
        super().check_timeouts()
        if self.state != self.STATE_OPEN:
            return
        if self._unanswered >= self.UNANSWERED and self.writable.is_set():
            self._life = time.monotonic()  # it is we who do not listen
        acked, unsent = self._tcp()
        if self._waited and acked > self._acked:
            self._life = time.monotonic()
        self._acked = acked
        self._waited = unsent > 0 or not self.writable.is_set()
        if time.monotonic() - self._life > self.SILENCE:
            logger.info("A socket that nobody reads was dropped")
            self.dropConnection(abort=True)

    def _tcp(self) -> tuple[int, int]:
        """Return how many bytes were acknowledged and not sent yet; 0 where the system does not say."""
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


class Allowance:
    """Allows `most` at once, and `a_second` after that."""

    def __init__(self, most: int, a_second: float) -> None:
        self._most = most
        self._rate = a_second
        self._left = float(most)
        self._at = time.monotonic()

    def take(self) -> bool:
        """Take one, and return whether there was one."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _text_head(length: int) -> bytes:
    """Return the head of a frame of text, whole and unmasked, as RFC 6455 section 5.2 defines it."""
    if length < 126:
        return bytes((0x81, length))
    return _SHORT.pack(0x81, 126, length) if length < 1 << 16 else _LONG.pack(0x81, 127, length)
