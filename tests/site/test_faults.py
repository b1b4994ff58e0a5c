"""Faults of a real site in the middle of its answers, and what must hold after each of them.

Every accepted message has one row with one end; what is stored is what was made, whole or its beginning; nobody was
told anything else; all places are free; nothing unexpected is in the log.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import time
from collections.abc import Collection
from contextlib import AsyncExitStack

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from llm.backends.synthetic import synthetic_text
from tests.load.crowd import Told
from tests.raw import TEXT, RawSocket, masked, opening, reset
from tests.server import Serve, Site
from tests.visitor import Socket, Visitor

PLACES, TOKENS, RATE = 4, 100, 60
STALL = 2
REST_SECONDS = 40
ENDS = {"stop", "length", "cancelled", "timeout", "error", "interrupted"}


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=PLACES,
        LLM_SYNTHETIC_TOKENS=TOKENS,
        LLM_SYNTHETIC_RATE=RATE,
        LLM_STALL_SECONDS=STALL,
    )


@pytest.fixture(autouse=True)
async def running(site: Site) -> None:
    """What an earlier test ended is started again."""
    assert site.process is not None
    if site.process.poll() is not None:
        await asyncio.to_thread(site.start)


async def ask(socket: Socket) -> Told:
    accepted = await socket.ask("message.send", text="Count")
    assert accepted["type"] == "message.accepted", accepted
    return Told(accepted)


async def read(socket: Socket, told: Told) -> None:
    """As far as it goes."""
    try:
        while told.end is None:
            told.take(await socket.next())
    except ConnectionClosed:
        pass


async def at_rest(site: Site) -> None:
    """Nothing runs or waits any more, and every end is stored: that comes after the place is free."""
    visitor, deadline = Visitor(site.url), time.monotonic() + REST_SECONDS
    while True:
        assert time.monotonic() < deadline, "a place is taken, or an answer without an end, for ever"
        if await asyncio.to_thread(site.ready):
            stats = await visitor.json("/stats")
            ends = {state for rows in stored(site).values() for state, _ in rows} <= ENDS
            if ends and (stats["processing"], stats["waiting"]) == (0, 0):
                return
        await asyncio.sleep(0.05)  # the period of the asking


def stored(site: Site) -> dict[str, list[tuple[str, str]]]:
    """State and text of the rows of each generation."""
    found: dict[str, list[tuple[str, str]]] = {}
    with sqlite3.connect(site.var / "db.sqlite3") as database:
        query = "SELECT g.id, g.state, m.text FROM chat_generation g JOIN chat_message m ON m.id = g.answer_id"
        for id, state, text in database.execute(query):
            found.setdefault(id, []).append((state, text))
    return found


async def check(site: Site, told: Collection[Told], ends: set[str]) -> None:
    """The invariants, for messages that may have ended in these ways and in no other."""
    await at_rest(site)
    rows, whole, seen = stored(site), synthetic_text(TOKENS), set[str]()
    for each in told:
        ((state, text),) = rows[each.accepted["generation"].replace("-", "")]
        seen.add(state)
        assert text == whole if state == "stop" else whole.startswith(text)
        assert whole.startswith(each.text)  # a killed process may have told a second more than it stored
        if each.end is not None:
            assert (each.end["reason"], each.text) == (state, text)
    assert seen == ends
    async with Visitor(site.url).socket() as after:
        one = await ask(after)
        await read(after, one)
        assert one.text == whole


def service_of(site: Site) -> psutil.Process:
    """It may be the child of a process that was killed."""
    services = [each for each in psutil.process_iter(["cmdline"]) if "llm.service" in (each.info["cmdline"] or ())]
    (service,) = [each for each in services if each.environ().get("CHATSTREAM_VAR") == str(site.var)]
    return service


async def test_connections_reset_while_they_are_written_to(site: Site) -> None:
    """More than there are places: the places are free again though nobody was left to read."""
    told: list[Told] = []
    for _ in range(2):
        sockets = [RawSocket(site.url, await Visitor(site.url).cookies()) for _ in range(2 * PLACES)]
        for each in sockets:
            each.send("message.send", text="Count")
        for each in sockets:
            while (frame := await asyncio.to_thread(each.next))["type"] != "message.accepted":
                pass
            told.append(Told(frame))
        while (await asyncio.to_thread(sockets[0].next))["type"] != "generation.delta":
            pass
        for each in sockets:
            each.abort()
    await check(site, told, {"stop"})
    assert "Traceback" not in site.log.read_text()


async def test_connections_reset_while_they_are_opened(site: Site) -> None:
    """At any moment between the request and what the application says to it."""
    logged, cookies = len(site.log.read_text()), await Visitor(site.url).cookies()
    for number in range(100):
        connection = socket.create_connection(("127.0.0.1", site.port))
        connection.sendall(opening(site.url, cookies))
        await asyncio.sleep(number % 10 * 0.001)  # so far it comes
        reset(connection)
    await check(site, [], set())
    assert "Traceback" not in site.log.read_text()[logged:]


async def test_messages_that_break_off_are_none(site: Site) -> None:
    """In the head of a frame, in its text, and after the first of its two parts."""
    before = stored(site)
    message = b'{"type":"message.send","id":"half","text":"' + b"x" * 2_000 + b'"}'
    whole, first_part = masked(TEXT, message), bytearray(masked(TEXT, message[:1_000]))
    first_part[0] &= 0x7F  # not the last part
    for half in (whole[:3], whole[:1_000], bytes(first_part)):
        sending = RawSocket(site.url, await Visitor(site.url).cookies())
        sending.socket.sendall(half)
        sending.abort()
    async with Visitor(site.url).socket() as asking:
        one = await ask(asking)
        await read(asking, one)
    await at_rest(site)
    assert len(stored(site)) == len(before) + 1
    await check(site, [one], {"stop"})
    assert "Traceback" not in site.log.read_text()


async def test_half_sent_requests_hold_up_nobody(site: Site) -> None:
    halves = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(50)]
    for each in halves:
        each.sendall(b"POST /api/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
    async with Visitor(site.url).socket() as asking:
        one = await ask(asking)
        await read(asking, one)
    for each in halves:
        each.close()
    await check(site, [one], {"stop"})


async def test_the_site_is_killed(site: Site) -> None:
    """Some are written, some wait; the next process ends them all."""
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(Visitor(site.url).socket()) for _ in range(2 * PLACES)]
        told = [await ask(each) for each in opened]
        await opened[0].until("generation.delta", seq=3)
        for each, one in zip(opened, told, strict=True):
            for frame in each.seen:
                one.take(frame)
        await asyncio.to_thread(site.stop, signal.SIGKILL)
        await asyncio.gather(*(read(each, one) for each, one in zip(opened, told, strict=True)))
    await asyncio.to_thread(site.start)
    await check(site, told, {"interrupted"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_site_is_told_to_end_as_messages_come_in(site: Site, number: int) -> None:
    """Within a second of the connections: who was accepted hears of the end, the others are refused."""
    visitors = [Visitor(site.url) for _ in range(PLACES)]
    for visitor in visitors:
        await visitor.cookies()
    told: list[Told] = []

    async def come(visitor: Visitor) -> None:
        async with visitor.socket() as asking:
            reply = await asking.ask("message.send", text="Count")
            if visitor is visitors[0]:
                site.tell(number)
            if reply["type"] == "message.accepted":
                one = Told(reply)
                told.append(one)
                await read(asking, one)
                assert one.end is not None
            else:
                assert reply["code"] == "restarting"

    await asyncio.gather(*map(come, visitors))
    assert await asyncio.to_thread(site.ended) == 0
    await asyncio.to_thread(site.start)
    assert told
    await check(site, told, {"interrupted"})


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_llm_service_dies_or_stands_still(site: Site, number: int) -> None:
    """What has streamed ends as an error, what has not runs again; the web side answers all the while."""
    async with AsyncExitStack() as stack, Visitor(site.url).socket() as watching:
        opened = [await stack.enter_async_context(Visitor(site.url).socket()) for _ in range(3 * PLACES)]
        told = [await ask(each) for each in opened]
        await opened[0].until("generation.delta", seq=1)
        for each, one in zip(opened, told, strict=True):
            for frame in each.seen:
                one.take(frame)
        service_of(site).send_signal(number)
        reading = asyncio.gather(*(read(each, one) for each, one in zip(opened, told, strict=True)))
        while not reading.done():
            began = time.monotonic()
            assert (await watching.ask("ping"))["type"] == "pong"
            assert time.monotonic() - began < 1
            await asyncio.wait([reading], timeout=0.1)
        await reading
    assert {one.end["reason"] for one in told if one.end is not None} == {"error", "stop"}
    await check(site, told, {"error", "stop"})
