"""Sockets that are read slowly, not at all, or break off: what they cost the server and what they get."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from llm.backends.synthetic import synthetic_text
from tests.raw import RawSocket
from tests.server import Serve, Site
from tests.visitor import Visitor

TOKENS = 8_000
TEXT = synthetic_text(150_000)
"""About a megabyte, the answer that is replayed."""

READERS = 300
MEMORY = 20 * 1024 * 1024
ENVIRONMENT = {
    "LLM_SYNTHETIC_TOKENS": TOKENS,
    "LLM_MAX_NEW_TOKENS": TOKENS,
    "LLM_SYNTHETIC_RATE": 4_000,
    "CHAT_SOCKETS_PER_VISITOR": 1_000,
}

Connect = Callable[[Site, str], RawSocket]


@pytest.fixture(scope="module")
def patient(serve: Serve) -> Site:
    return serve(**ENVIRONMENT)


@pytest.fixture(scope="module")
def impatient(serve: Serve) -> Site:
    """Four seconds without a sign of life, and a socket is dropped."""
    return serve(program="tests/site/impatient.py", **ENVIRONMENT)


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened: list[RawSocket] = []

    def connected(site: Site, cookies: str) -> RawSocket:
        opened.append(RawSocket(site.url, cookies))
        return opened[-1]

    yield connected
    for each in opened:
        each.socket.close()


def read_answer(socket: RawSocket, rate: float | None = None) -> str:
    """The text of one generation from its snapshot to its end; fails on a gap or a repeat."""
    while (frame := socket.next(rate))["type"] != "generation.snapshot":
        pass
    parts, next_seq = [frame["text"]], frame["next_seq"]
    while (frame := socket.next(rate))["type"] != "generation.finished":
        if frame["type"] == "generation.delta":
            assert frame["seq"] == next_seq
            parts.append(frame["text"])
            next_seq += 1
    return "".join(parts)


async def replay(site: Site, visitor: Visitor) -> dict[str, str]:
    """The fields that open a conversation whose answer is TEXT."""
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="/echo a")
        await socket.answer(accepted)
    text = "' '.join(str(number) for number in range(1, 150_001))"
    code = f"from chat.models import Message; Message.objects.filter(pk='{accepted['answer']}').update(text={text})"
    await asyncio.to_thread(site.manage, "shell", "-c", code)
    await asyncio.to_thread(site.stop)
    await asyncio.to_thread(site.start)  # it knows of the answer what is stored
    return {name: accepted[name] for name in ("conversation", "generation")}


def web_process(site: Site) -> psutil.Process:
    assert site.process is not None
    return psutil.Process(site.process.pid)


def most_memory(process: psutil.Process) -> int:
    """The largest resident memory until the process has been idle for two seconds."""
    largest, calm, before = 0, 0, sum(process.cpu_times()[:2])
    deadline = time.monotonic() + 40
    while calm < 20:
        assert time.monotonic() < deadline, "it never comes to rest"
        time.sleep(0.1)  # the period of the sampling
        largest = max(largest, process.memory_info().rss)
        now = sum(process.cpu_times()[:2])
        calm, before = (calm + 1 if now - before <= 0.02 else 0), now
    return largest


def connections_fall_to(process: psutil.Process, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(process.net_connections("tcp")) > count:
        assert time.monotonic() < deadline, "connections are left behind"
        time.sleep(0.05)


async def test_hundreds_of_unread_sockets_cost_no_memory_and_can_be_read_later(patient: Site, connect: Connect) -> None:
    visitor = Visitor(patient.url)
    opened = await replay(patient, visitor)
    cookies = await visitor.cookies()
    with ThreadPoolExecutor(20) as pool:
        sockets = list(pool.map(lambda _: connect(patient, cookies), range(READERS)))
    first = connect(patient, cookies)
    first.send("conversation.open", **opened)
    assert await asyncio.to_thread(read_answer, first) == TEXT  # what one reader costs is there before the others
    process = web_process(patient)
    base = process.memory_info().rss
    for socket in sockets:
        socket.send("conversation.open", **opened)
    grown = await asyncio.to_thread(most_memory, process) - base
    print(f"{READERS} unread readers of {len(TEXT)} bytes: +{grown / 2**20:.1f} MiB")
    assert grown <= MEMORY
    assert await asyncio.to_thread(read_answer, sockets[-1]) == TEXT


@pytest.mark.parametrize("much", [False, True], ids=["nothing to read", "much to read"])
async def test_a_dead_reader_is_dropped(impatient: Site, connect: Connect, much: bool) -> None:
    visitor = Visitor(impatient.url)
    opened = await replay(impatient, visitor) if much else {}
    dead = connect(impatient, await visitor.cookies())
    if much:
        dead.send("conversation.open", **opened)
    began = time.monotonic()
    assert await asyncio.to_thread(dead.dropped, 15)
    assert time.monotonic() - began > 3


async def test_the_turn_of_a_dead_reader_completes(impatient: Site, connect: Connect) -> None:
    visitor = Visitor(impatient.url)
    dead = connect(impatient, await visitor.cookies())
    dead.send("message.send", text="Count")
    assert await asyncio.to_thread(dead.dropped, 15)
    (listed,) = (await visitor.json("/api/conversations/"))["conversations"]
    async with visitor.socket() as socket:
        await socket.ask("conversation.open", conversation=listed["id"])
        if (await visitor.json(f"/api/conversations/{listed['id']}/"))["messages"][1]["generation"][
            "state"
        ] == "running":
            await socket.until("generation.finished")
    stored = await visitor.json(f"/api/conversations/{listed['id']}/")
    assert stored["messages"][1]["generation"]["state"] == "stop"
    assert stored["messages"][1]["text"] == synthetic_text(TOKENS)


async def test_a_slow_reader_gets_everything_and_a_silent_one_that_lives_stays(
    impatient: Site, connect: Connect
) -> None:
    """The reader takes three times as long as a dead one has."""
    visitor = Visitor(impatient.url)
    opened = await replay(impatient, visitor)
    async with visitor.socket() as idle:
        slow = connect(impatient, await visitor.cookies())
        slow.send("conversation.open", **opened)
        began = time.monotonic()
        assert await asyncio.to_thread(read_answer, slow, 80_000) == TEXT
        assert time.monotonic() - began > 11
        assert (await idle.ask("ping"))["type"] == "pong"


async def test_readers_that_break_off_leave_nothing_behind(patient: Site, connect: Connect) -> None:
    visitor = Visitor(patient.url)
    opened = await replay(patient, visitor)
    cookies = await visitor.cookies()
    process, logged = web_process(patient), len(patient.log.read_text())
    async with visitor.socket() as staying:
        accepted = await staying.ask("message.send", text="Count")
        await staying.until("generation.delta")
        base = len(process.net_connections("tcp"))
        for _ in range(10):
            leaving = [connect(patient, cookies) for _ in range(5)]
            for socket in leaving:
                socket.send("conversation.open", **opened)
            for socket in leaving:
                while (await asyncio.to_thread(socket.next))["type"] != "generation.snapshot":
                    pass
                socket.abort()
        assert (await staying.answer(accepted)).text == synthetic_text(TOKENS)
        await asyncio.to_thread(connections_fall_to, process, base)
        assert (await staying.ask("ping"))["type"] == "pong"
    assert "Traceback" not in patient.log.read_text()[logged:]


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_the_real_numbers(patient: Site, connect: Connect) -> None:
    """Dropped within 25 seconds; 10 KB a second is alive."""
    visitor = Visitor(patient.url)
    opened = await replay(patient, visitor)
    cookies = await visitor.cookies()
    dead, slow = connect(patient, cookies), connect(patient, cookies)
    for socket in (dead, slow):
        socket.send("conversation.open", **opened)

    def lives() -> int:
        began, read = time.monotonic(), 0
        while time.monotonic() - began < 60:
            read += len(str(slow.next(10_000).get("text", "")))
        return read

    dropped, read = await asyncio.gather(asyncio.to_thread(dead.dropped, 25), asyncio.to_thread(lives))
    assert dropped
    assert read > 400_000
