"""The end of the site as those see it who are connected: told, answered to the end, closed with a reason."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import time
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

from llm.backends.synthetic import synthetic_text
from tests.server import Serve, Site
from tests.visitor import Socket, Visitor

RESTART = 1012
TOKENS = 100


@pytest.fixture(scope="module")
def answering(serve: Serve) -> Site:
    """Answers take two seconds and may be finished."""
    return serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=50, CHAT_DRAIN_SECONDS=30)


@pytest.fixture(scope="module")
def endless(serve: Serve) -> Site:
    """Answers go on until they are stopped; a second is left to them."""
    return serve(
        LLM_SYNTHETIC_TOKENS=100_000, LLM_MAX_NEW_TOKENS=100_000, CHAT_DRAIN_SECONDS=1, CHAT_SOCKETS_PER_VISITOR=100
    )


async def close_code(socket: Socket) -> int | None:
    """How the server closes it; what still comes before is read."""
    try:
        while True:
            await socket.next()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


async def ended(site: Site) -> int:
    return await asyncio.to_thread(site.ended)


async def started(site: Site) -> None:
    """Sites are started again after each test that ended them."""
    assert site.process is not None
    if site.process.poll() is not None:
        await asyncio.to_thread(site.start)


@pytest.fixture
def kept(answering: Site) -> Iterator[http.client.HTTPConnection]:
    """A connection that is kept alive between requests."""
    connection = http.client.HTTPConnection("127.0.0.1", answering.port, timeout=10)
    yield connection
    connection.close()


async def test_an_answer_under_way_is_finished_and_idle_sockets_are_closed_before(
    answering: Site, kept: http.client.HTTPConnection
) -> None:
    await started(answering)
    visitor = Visitor(answering.url)
    kept.request("GET", "/readyz")
    assert (kept.getresponse().read(), kept.sock is not None) == (b"ready\n", True)
    async with visitor.socket() as asking, Visitor(answering.url).socket() as idle, visitor.socket() as watching:
        accepted = await asking.ask("message.send", text="Count")
        await watching.ask("conversation.open", conversation=accepted["conversation"])
        await asking.until("generation.delta", seq=2)
        answering.tell(signal.SIGTERM)
        restarting = await idle.until("server.restarting")
        assert restarting["retry_after"] > 0
        assert await close_code(idle) == RESTART
        kept.request("GET", "/readyz")
        answer = kept.getresponse()
        assert (answer.status, answer.read()) == (503, b"draining\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", answering.port))
        refused = await asking.ask("message.send", text="More")
        assert (refused["type"], refused["code"]) == ("error", "restarting")
        assert refused["retry_after"] > 0
        assert asking.seen[-1]["type"] != "generation.finished"
        told = await asking.answer(accepted)
        assert (told.text, told.end["reason"]) == (synthetic_text(TOKENS), "stop")
        assert await close_code(asking) == RESTART
        assert await close_code(watching) == RESTART
        for each in (asking, watching):
            assert [frame["type"] for frame in each.seen].count("server.restarting") == 1
            assert [frame["type"] for frame in each.seen].count("generation.finished") == 1
        assert await ended(answering) == 0
    await started(answering)
    stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
    assert stored["messages"][1]["text"] == synthetic_text(TOKENS)
    assert stored["messages"][1]["generation"]["state"] == "stop"


async def test_an_answer_that_does_not_end_is_kept_as_interrupted(endless: Site) -> None:
    await started(endless)
    visitor = Visitor(endless.url)
    async with visitor.socket() as asking:
        accepted = await asking.ask("message.send", text="Count")
        await asking.until("generation.delta", seq=2)
        endless.tell(signal.SIGTERM)
        began = time.monotonic()
        told = await asking.answer(accepted)
        assert (told.end["reason"], told.end["code"]) == ("interrupted", "interrupted")
        assert 0.8 < time.monotonic() - began < 5
        assert await close_code(asking) == RESTART
        assert await ended(endless) == 0
    assert "Traceback" not in endless.log.read_text()
    await started(endless)
    stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
    assert stored["messages"][1]["text"] == told.text
    assert stored["messages"][1]["generation"]["state"] == "interrupted"


async def test_sockets_that_are_just_connecting_are_told_and_closed(endless: Site) -> None:
    await started(endless)
    visitor = Visitor(endless.url)
    await visitor.cookies()
    connected = 0

    async def connect() -> Socket | None:
        nonlocal connected
        try:
            async with visitor.socket() as socket:
                connected += 1
                if connected == 3:
                    endless.tell(signal.SIGTERM)
                assert await close_code(socket) == RESTART
                return socket
        except (OSError, WebSocketException):  # its handshake came too late
            return None

    sockets = [each for each in await asyncio.gather(*(connect() for _ in range(40))) if each is not None]
    assert len(sockets) == connected
    for each in sockets:
        assert [frame["type"] for frame in each.seen].count("server.restarting") == 1
    assert await ended(endless) == 0
    assert "Traceback" not in endless.log.read_text()


async def test_a_second_signal_ends_it_at_once(answering: Site) -> None:
    await started(answering)
    async with Visitor(answering.url).socket() as asking:
        await asking.ask("message.send", text="Count")
        await asking.until("generation.delta")
        answering.tell(signal.SIGTERM)
        await asking.until("server.restarting")
        answering.tell(signal.SIGTERM)
        assert await ended(answering) == -signal.SIGTERM
        assert await close_code(asking) is None
        assert all(frame["type"] != "generation.finished" for frame in asking.seen)


async def test_a_half_sent_request_holds_up_neither_the_others_nor_the_end(endless: Site) -> None:
    await started(endless)
    with (
        socket.create_connection(("127.0.0.1", endless.port)) as half,
        socket.create_connection(("127.0.0.1", endless.port)) as nothing,
    ):
        half.sendall(b"POST /api/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf")
        nothing.sendall(b"GET / HT")
        async with Visitor(endless.url).socket() as asking:
            accepted = await asking.ask("message.send", text="Count")
            await asking.until("generation.delta")
            await asking.ask("generation.stop", generation=accepted["generation"])
            await asking.until("generation.finished")
            endless.tell(signal.SIGTERM)
            assert await close_code(asking) == RESTART
        assert await ended(endless) == 0
