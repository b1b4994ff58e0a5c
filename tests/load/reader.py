"""A WebSocket that only reads, as cheaply as Python can: in a measurement the client must not be what is measured."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

TEXT, PING = 0x81, 0x89


class Reader(asyncio.Protocol):
    """Hands each text frame, as bytes, to `receive`; answers pings."""

    def __init__(self, receive: Callable[[bytes], None]) -> None:
        self._receive = receive
        self._rest = b""
        self._open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    @classmethod
    async def connect(cls, url: str, path: str, receive: Callable[[bytes], None], cookies: str = "") -> Reader:
        """An open socket to `path` of a site."""
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        _, reader = await loop.create_connection(lambda: cls(receive), address.hostname, address.port)
        reader.transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nOrigin: {url}\r\nCookie: {cookies}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        await reader._open
        return reader

    def send(self, type: str, **fields: Any) -> None:
        self._write(TEXT, json.dumps({"type": type, "id": uuid4().hex, **fields}).encode())

    async def aclose(self) -> None:
        self.transport.abort()
        await self._closed

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self._open, self._closed):
            if not future.done():
                future.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self._open.done():
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._rest = head
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._open.set_result(None)
        at, size = 0, len(data)
        while size - at >= 2:
            begin, length = at + 2, data[at + 1]
            if length == 126:
                begin, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
            elif length == 127:
                begin, length = at + 10, int.from_bytes(data[at + 2 : at + 10], "big")
            if begin + length > size:
                break
            if data[at] == TEXT:
                self._receive(data[begin : begin + length])
            elif data[at] == PING:
                self._write(0x8A, data[begin : begin + length])
            at = begin + length
        self._rest = data[at:]

    def _write(self, opcode: int, payload: bytes) -> None:
        length, mask = len(payload), os.urandom(4)
        assert length < 65536
        head = bytes([opcode, 0x80 | length]) if length < 126 else bytes([opcode, 0xFE]) + length.to_bytes(2, "big")
        self.transport.write(head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)))
