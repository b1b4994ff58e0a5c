"""Clients that send more than anyone can want: what they get, and what the others notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from socket import SO_SNDBUF, SOL_SOCKET, create_connection, socket
from urllib.parse import urlsplit

import psutil
import pytest

from tests.raw import PING, TEXT, RawSocket, masked, opening
from tests.server import Serve, Site
from tests.visitor import Socket, Visitor

TOO_MANY = 4429
AT_ONCE = 100
"""Frames a socket may send at once, from a full allowance."""

FLOOD = 50_000
MEMORY = 10 * 2**20
BUSY = 1.0
"""Seconds of computing."""

DELAY = 0.5
"""Seconds another socket may wait for an answer; on a free machine it is a few milliseconds."""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=4_000, LLM_MAX_NEW_TOKENS=4_000, LLM_SYNTHETIC_RATE=4_000)


def flood(socket: RawSocket, frame: bytes, count: int) -> None:
    """Send as fast as it goes, until the server does not take it any more."""
    try:
        for _ in range(count // 100):
            socket.socket.sendall(frame * 100)
    except (TimeoutError, ConnectionError):
        pass


async def slowest(socket: Socket, during: Awaitable[None]) -> float:
    """The longest that a ping is under way while something else goes on."""
    other, longest = asyncio.ensure_future(during), 0.0
    while not other.done():
        began = time.monotonic()
        assert (await socket.ask("ping"))["type"] == "pong"
        longest = max(longest, time.monotonic() - began)
        await asyncio.wait([other], timeout=0.06)  # below its own rate
    await other
    return longest


def memory(site: Site) -> Callable[[], int]:
    """How much the web process has grown by since."""
    assert site.process is not None
    process = psutil.Process(site.process.pid)
    before = process.memory_info().rss
    return lambda: process.memory_info().rss - before


@pytest.mark.parametrize(
    "frame",
    [
        masked(TEXT, b'{"type":"ping","id":"a"}'),
        masked(TEXT, b"no frame"),
        masked(TEXT, b'{"type":"conversation.open","id":"a","conversation":"' + b"0" * 36 + b'"}'),
        masked(PING, b""),
    ],
    ids=["pings", "nonsense", "questions", "control frames"],
)
async def test_a_flood_is_closed_costs_no_memory_and_keeps_nobody_waiting(site: Site, frame: bytes) -> None:
    flooding = RawSocket(site.url, await Visitor(site.url).cookies())
    flooding.socket.settimeout(3)
    grown = memory(site)
    async with Visitor(site.url).socket() as other:
        delay = await slowest(other, asyncio.to_thread(flood, flooding, frame, FLOOD))
    print(f"slowest answer beside the flood: {delay * 1e3:.0f} ms, memory {grown() / 2**20:+.1f} MiB")
    assert grown() < MEMORY
    assert delay < DELAY
    assert await asyncio.to_thread(flooding.close_code) == TOO_MANY
    flooding.socket.close()


async def test_a_socket_that_is_closed_is_not_read_either(serve: Serve) -> None:
    """It has some seconds to say that it has heard; what it says instead is work for nobody."""
    site = serve(program="tests/site/impatient.py")
    assert site.process is not None
    address, process = urlsplit(site.url), psutil.Process(site.process.pid)
    with create_connection((address.hostname, address.port), timeout=15) as stranger:
        stranger.sendall(opening(site.url, "no=session"))
        await asyncio.to_thread(read_until, stranger, (4401).to_bytes(2, "big"))
        before = sum(process.cpu_times()[:2])
        await asyncio.to_thread(flood_until_dropped, stranger, masked(TEXT, b"a"))
        assert sum(process.cpu_times()[:2]) - before < BUSY


def read_until(connection: socket, end: bytes) -> None:
    read = b""
    while end not in read:
        read += connection.recv(4096)


def flood_until_dropped(connection: socket, frame: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            connection.sendall(frame * 1000)


async def test_what_is_within_the_allowance_is_answered_to_the_last_frame(site: Site) -> None:
    async with Visitor(site.url).socket() as socket:
        sent = [await socket.send("ping") for _ in range(AT_ONCE - 10)]
        for id in sent:
            assert (await socket.next())["id"] == id


async def test_who_does_not_read_is_not_read_either_and_loses_nothing(site: Site) -> None:
    """Replays of a long answer pile up unread: the frames behind them wait in the client, and are answered later."""
    visitor, count = Visitor(site.url), 60
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Count")
        await socket.until("generation.finished")
    lazy = RawSocket(site.url, await visitor.cookies())
    lazy.socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 64 * 1024)
    question = {name: accepted[name] for name in ("conversation", "generation")}
    frames = [
        masked(TEXT, json.dumps({"type": "conversation.open", "id": str(number), **question}).encode() + b" " * 30_000)
        for number in range(count)
    ]
    grown = memory(site)
    sending = asyncio.create_task(asyncio.to_thread(lazy.socket.sendall, b"".join(frames)))
    await asyncio.wait([sending], timeout=2)
    assert not sending.done()
    assert grown() < MEMORY

    def read() -> list[str]:
        answered: list[str] = []
        while len(answered) < count:
            frame = lazy.next()
            if frame["type"] == "ok":
                answered.append(frame["id"])
        return answered

    assert sorted(await asyncio.to_thread(read), key=int) == [str(number) for number in range(count)]
    await sending
    lazy.socket.close()
