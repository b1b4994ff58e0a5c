"""The site as an operator starts it, talked to as a browser does: daphne, the llm service and real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from websockets.exceptions import ConnectionClosed

from llm.backends.synthetic import synthetic_text
from tests.server import ROOT, Serve, Site
from tests.visitor import Answer, Visitor


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=60, LLM_SYNTHETIC_RATE=100)


@pytest.fixture(scope="module")
def slow_site(serve: Serve) -> Site:
    """One answer at a time, one may wait; answers go on until they are stopped."""
    return serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=1,
        LLM_MAX_QUEUE_SIZE=1,
        LLM_SYNTHETIC_TOKENS=100_000,
        LLM_MAX_NEW_TOKENS=100_000,
    )


async def test_two_visitors_are_answered_at_the_same_time(site: Site) -> None:
    async with Visitor(site.url).socket() as one, Visitor(site.url).socket() as two:
        first, second = await asyncio.gather(Answer.to(one, "Hello"), Answer.to(two, "Hello"))
        for answer in (first, second):
            assert answer.text == synthetic_text(60)
            assert answer.end["reason"] == "stop"
            assert answer.kinds[0] == "started"
            assert answer.end["timings"]["queue_time"] < 0.3


async def test_stored_text_is_the_streamed_text(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello\nthere")
        answer = await socket.answer(accepted)
        stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
        assert [message["text"] for message in stored["messages"]] == ["Hello\nthere", answer.text]
        assert stored["messages"][1]["generation"]["state"] == "stop"
        (listed,) = (await visitor.json("/api/conversations/"))["conversations"]
        assert listed["title"] == "Hello"
    other = Visitor(site.url)
    await other.cookies()
    assert (await other.json("/api/conversations/"))["conversations"] == []


async def test_second_waits_with_its_place_and_third_is_refused(slow_site: Site) -> None:
    async with (
        Visitor(slow_site.url).socket() as one,
        Visitor(slow_site.url).socket() as two,
        Visitor(slow_site.url).socket() as three,
    ):
        running = await one.ask("message.send", text="one")
        await one.until("generation.started")
        waiting = await two.ask("message.send", text="two")
        assert (await two.until("generation.queued"))["position"] == 1
        refused = await three.ask("message.send", text="three")
        assert (refused["type"], refused["code"]) == ("error", "overloaded")
        assert refused["retry_after"] > 0
        stats = await Visitor(slow_site.url).json("/stats")
        assert (stats["processing"], stats["waiting"]) == (1, 1)
        assert (stats["max_processing"], stats["max_waiting"]) == (1, 1)
        assert (await one.ask("generation.stop", generation=running["generation"]))["type"] == "ok"
        assert (await one.until("generation.finished"))["reason"] == "cancelled"
        await two.until("generation.started")
        await two.ask("generation.stop", generation=waiting["generation"])
        await two.until("generation.finished")


async def test_answer_goes_on_without_its_socket_and_is_picked_up(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello")
        await socket.until("generation.delta", seq=3)
    async with visitor.socket() as socket:
        await socket.ask("conversation.open", conversation=accepted["conversation"], next_seq=4)
        first = await socket.until("generation.delta")
        assert first["seq"] == 4
        await socket.until("generation.finished", reason="stop")
    stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
    assert stored["messages"][1]["text"] == synthetic_text(60)


async def test_cut_off_answer_goes_on(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello", params={"max_new_tokens": 20})
        assert (await socket.answer(accepted)).end["reason"] == "length"
        continued = await socket.ask("message.continue", message=accepted["answer"])
        assert (await socket.until("generation.snapshot"))["text"] == synthetic_text(20)
        finished = await socket.until("generation.finished", generation=continued["generation"])
        assert (finished["reason"], finished["usage"]["completion_tokens"]) == ("stop", 40)
    _, answer = (await visitor.json(f"/api/conversations/{accepted['conversation']}/"))["messages"]
    assert answer["text"] == synthetic_text(60)


async def test_answer_streams_on_while_the_database_is_locked_and_is_stored_after(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello")
        text = (await socket.until("generation.delta"))["text"]
        with contextlib.closing(sqlite3.connect(site.var / "db.sqlite3", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            while text != synthetic_text(60):
                text += (await socket.until("generation.delta"))["text"]
            stats = await visitor.json("/stats")
            assert stats["state"] == "ready"
            (listed,) = (await visitor.json("/api/conversations/"))["conversations"]
            assert listed["live"] == accepted["generation"]
            database.execute("ROLLBACK")
        await socket.until("generation.finished", reason="stop")
    _, answer = (await visitor.json(f"/api/conversations/{accepted['conversation']}/"))["messages"]
    assert (answer["generation"]["state"], answer["text"]) == ("stop", text)


async def test_nobody_stops_or_opens_what_is_not_theirs(site: Site) -> None:
    async with Visitor(site.url).socket() as owner, Visitor(site.url).socket() as stranger:
        accepted = await owner.ask("message.send", text="mine")
        ids = {name: accepted[name] for name in ("conversation", "generation")}
        for frame in (
            ("generation.stop", {"generation": ids["generation"]}),
            ("conversation.open", {"conversation": ids["conversation"]}),
            ("message.send", {"conversation": ids["conversation"], "text": "hijack"}),
            ("message.regenerate", {"message": accepted["answer"]}),
        ):
            refused = await stranger.ask(frame[0], **frame[1])
            assert (refused["type"], refused["code"]) == ("error", "not_found")
        assert (await owner.answer(accepted)).end["reason"] == "stop"


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        ("not json", "bad_frame"),
        ("[]", "bad_frame"),
        ('{"type": "message.send"}', "bad_frame"),
        ('{"type": "message.send", "id": "1", "text": 5}', "bad_frame"),
        ('{"type": "message.send", "id": "1", "text": "  "}', "bad_frame"),
        ('{"type": "message.send", "id": "1", "text": "a\\u0000b"}', "bad_frame"),
        ('{"type": "no.such", "id": "1"}', "bad_frame"),
        ('{"type": "message.send", "id": "1", "text": "x", "params": {"temperature": -1}}', "bad_frame"),
        ("[" * 10_000, "bad_frame"),
        ("x" * 70_000, "too_large"),
        (b"\x00\x01", "bad_frame"),
    ],
)
async def test_bad_frame_is_answered_and_the_socket_stays(site: Site, raw: str | bytes, code: str) -> None:
    async with Visitor(site.url).socket() as socket:
        await socket.connection.send(raw)
        frame = await socket.next()
        assert (frame["type"], frame["code"]) == ("error", code)
        assert (await socket.ask("ping"))["type"] == "pong"


async def test_socket_without_a_session_is_told_and_closed(site: Site) -> None:
    async with Visitor(site.url).socket(session=False) as socket:
        frame = await socket.next()
        assert (frame["type"], frame["code"]) == ("error", "no_session")
        await socket.connection.wait_closed()
        assert socket.connection.close_code == 4401


async def test_restart_keeps_conversations_and_ends_what_ran(serve: Serve) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=100_000, LLM_MAX_NEW_TOKENS=100_000)
    visitor = Visitor(site.url)
    for number, with_signal in enumerate((signal.SIGTERM, signal.SIGKILL), start=1):
        async with visitor.socket() as socket:
            accepted = await socket.ask("message.send", text=f"question {number}")
            await socket.until("generation.delta", seq=2)
            code = await asyncio.to_thread(site.stop, with_signal)
        assert code == (0 if with_signal == signal.SIGTERM else -signal.SIGKILL)
        await asyncio.to_thread(site.start)
        listed = (await visitor.json("/api/conversations/"))["conversations"]
        assert [conversation["title"] for conversation in listed] == [f"question {n}" for n in range(number, 0, -1)]
        stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
        assert stored["messages"][1]["generation"]["state"] == "interrupted"
        if with_signal == signal.SIGTERM:
            assert stored["messages"][1]["text"].startswith("1 2 3")


async def test_killed_site_keeps_the_text_up_to_a_second_before(serve: Serve) -> None:
    rate = 50
    site = serve(LLM_SYNTHETIC_TOKENS=100_000, LLM_MAX_NEW_TOKENS=100_000, LLM_SYNTHETIC_RATE=rate)
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello")
        seen = ""
        while len(seen.split()) < 3 * rate:
            seen += (await socket.until("generation.delta"))["text"]
        await asyncio.to_thread(site.stop, signal.SIGKILL)
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen += (await socket.until("generation.delta"))["text"]
    await asyncio.to_thread(site.start)
    _, answer = (await visitor.json(f"/api/conversations/{accepted['conversation']}/"))["messages"]
    assert answer["generation"]["state"] == "interrupted"
    assert seen.startswith(answer["text"])
    assert len(seen.split()) - len(answer["text"].split()) < 1.5 * rate


def test_plain_daphne_serves_the_site(serve: Serve) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=5)
    site.stop()
    command = [sys.executable, "-m", "daphne", "-p", str(site.port), "chatsite.asgi:application"]
    with site.log.open("ab") as log:
        site.process = subprocess.Popen(command, cwd=ROOT, env=site._environment, stdout=log, stderr=log)

    async def chat() -> None:
        visitor = Visitor(site.url)
        async with asyncio.timeout(30):
            while not site.ready():
                assert site.process is not None
                assert site.process.poll() is None
                await asyncio.sleep(0.05)
        async with visitor.socket() as socket:
            assert (await Answer.to(socket, "Hello")).text == synthetic_text(5)

    asyncio.run(chat())


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"LLM_MAX_QUEUE_SIZE": "-3"}, 1, "LLM_MAX_QUEUE_SIZE=-3: expected int >= 0"),
        ({"CHAT_SESSION_DAYS": "soon"}, 1, "CHAT_SESSION_DAYS=soon"),
        ({"LLM_PROMPT": "no.such.Class", "LLM_BACKEND": "local"}, 1, "LLM_PROMPT=no.such.Class"),
        ({"LLM_MODEL": "/nowhere/model", "LLM_BACKEND": "local"}, 1, "LLM_MODEL=/nowhere/model"),
        ({"LLM_MODEL": "python:no.such.function", "LLM_BACKEND": "local"}, os.EX_CONFIG, "python:no.such.function"),
        ({"LLM_DEVICE": "cuda:99", "LLM_BACKEND": "local"}, os.EX_CONFIG, "LLM_DEVICE=cuda:99"),
    ],
)
def test_serve_with_settings_that_cannot_work_says_so_in_a_line(
    tmp_path, environment: dict[str, str], code: int, words: str
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "CHAT"))}
    site = clean | {"CHATSTREAM_VAR": str(tmp_path), "LLM_BACKEND": "synthetic"} | environment
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0", "--skip-checks"], cwd=ROOT, env=site, check=True)
    ended = subprocess.run(
        [sys.executable, "manage.py", "serve", "--port", "0"], cwd=ROOT, env=site, capture_output=True, text=True
    )
    assert ended.returncode == code, ended.stderr
    assert words in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
