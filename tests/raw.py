"""A WebSocket by hand, for peers that read slowly, never, or break off: nothing is read that was not asked for."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


def masked(opcode: int, payload: bytes) -> bytes:
    """A frame as a client sends it."""
    length, mask = len(payload), os.urandom(4)
    head = bytes([0x80 | opcode]) + (bytes([0x80 | length]) if length < 126 else struct.pack(">BH", 0xFE, length))
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def opening(url: str, cookies: str) -> bytes:
    """The request for a socket."""
    lines = [
        "GET /ws/chat/ HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        f"Origin: {url}",
        f"Cookie: {cookies}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def reset(connection: socket.socket) -> None:
    """Break it off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class RawSocket:
    """An open socket to `/ws/chat/` of a visitor with these cookies."""

    def __init__(self, url: str, cookies: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=30)
        self._read = bytearray()
        self.socket.sendall(opening(url, cookies))
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, rest = bytes(self._read).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self._read = bytearray(rest)
        while self.next()["type"] != "status":
            pass

    def send(self, type: str, **fields: Any) -> None:
        self.socket.sendall(masked(TEXT, json.dumps({"type": type, "id": uuid4().hex, **fields}).encode()))

    def next(self, rate: float | None = None) -> dict[str, Any]:
        """The next frame of text, read at so many bytes a second; pings are answered on the way."""
        while True:
            opcode, payload = self._frame(rate)
            if opcode == TEXT:
                frame: dict[str, Any] = json.loads(payload)
                return frame
            assert opcode == PING, (opcode, payload)
            self.socket.sendall(masked(PONG, payload))

    def close_code(self) -> int:
        """With which the server closes it; what it sends before is passed over."""
        opcode, payload = 0, b""
        while opcode != CLOSE:
            opcode, payload = self._frame(None)
        return int.from_bytes(payload[:2], "big")

    def dropped(self, within: float) -> bool:
        """The server resets the connection in that time; nothing is read."""
        poll = select.poll()
        poll.register(self.socket, 0)  # errors are reported without being asked for
        return bool(poll.poll(within * 1000))

    def abort(self) -> None:
        reset(self.socket)

    def _frame(self, rate: float | None) -> tuple[int, bytes]:
        opcode, length = self._bytes(2, rate)
        if length == 126:
            (length,) = struct.unpack(">H", self._bytes(2, rate))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._bytes(8, rate))
        return opcode & 15, self._bytes(length, rate)

    def _bytes(self, count: int, rate: float | None) -> bytes:
        while len(self._read) < count:
            self._more(rate)
        found = bytes(self._read[:count])
        del self._read[:count]
        return found

    def _more(self, rate: float | None = None) -> None:
        data = self.socket.recv(65536 if rate is None else 2048)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._read += data
        if rate is not None:
            time.sleep(len(data) / rate)  # this is the reader's pace, not a wait for something
