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

PING = 9


class RawSocket:
    """An open socket to `/ws/chat/` of a visitor with these cookies."""

    def __init__(self, url: str, cookies: str) -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=30)
        self._read = bytearray()
        lines = [
            "GET /ws/chat/ HTTP/1.1",
            f"Host: {address.netloc}",
            f"Origin: {url}",
            f"Cookie: {cookies}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, rest = bytes(self._read).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        self._read = bytearray(rest)
        while self.next()["type"] != "status":
            pass

    def send(self, type: str, **fields: Any) -> None:
        self._send(1, json.dumps({"type": type, "id": uuid4().hex, **fields}).encode())

    def next(self, rate: float | None = None) -> dict[str, Any]:
        """The next frame of text, read at so many bytes a second; pings are answered on the way."""
        while True:
            opcode, payload = self._frame(rate)
            if opcode == 1:
                frame: dict[str, Any] = json.loads(payload)
                return frame
            assert opcode == PING, (opcode, payload)
            self._send(10, payload)

    def dropped(self, within: float) -> bool:
        """The server resets the connection in that time; nothing is read."""
        poll = select.poll()
        poll.register(self.socket, 0)  # errors are reported without being asked for
        return bool(poll.poll(within * 1000))

    def abort(self) -> None:
        """Break off with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _send(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        head = bytes([0x80 | opcode]) + (bytes([0x80 | length]) if length < 126 else struct.pack(">BH", 0xFE, length))
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.socket.sendall(head + mask + masked)

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
