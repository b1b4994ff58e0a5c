"""Several web processes, one llm service, PostgreSQL and Redis: one site, whichever process a visitor is connected to.

After each fault: one final row for each accepted message, its text what was shown, one end for each watcher.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from llm.backends.synthetic import synthetic_text
from tests.load.crowd import Told
from tests.server import NOT_OURS, ROOT, Serve, Site
from tests.stores import Redis
from tests.visitor import Frame, Socket, Visitor

TOKENS = 100
ENDLESS = 100_000
RATE = 50
MESSAGES = 4
"""A minute; every visitor of these tests sends fewer."""


@dataclass
class Processes:
    """`one`, `two` and `three` are web processes of the same site."""

    one: Site
    two: Site
    three: Site
    redis: Redis
    database: str

    def stored(self, accepted: Frame) -> tuple[str, str]:
        """State and text of its one row."""
        query = (
            "SELECT g.state, m.text FROM chat_generation g JOIN chat_message m ON m.id = g.answer_id WHERE g.id = %s"
        )
        with psycopg.connect(self.database) as connection:
            ((state, text),) = connection.execute(query, [accepted["generation"]]).fetchall()
        return state, text

    def break_connections(self) -> int:
        """End every connection to the database; how many there were."""
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> %s"
        )
        with psycopg.connect(self.database) as connection:
            return len(connection.execute(query, [connection.info.backend_pid]).fetchall())

    @contextlib.contextmanager
    def without_database(self) -> Iterator[None]:
        """Nobody can connect, and nobody is."""
        server, _, name = self.database.rpartition("/")
        with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            try:
                yield
            finally:
                connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


@pytest.fixture(scope="module")
def service() -> Iterator[dict[str, object]]:
    """An llm service that stays; the environment of its clients."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
    own = {
        "LLM_BACKEND": "synthetic",
        "LLM_SERVICE_TOKEN": "token",
        "LLM_SYNTHETIC_TOKENS": str(ENDLESS),
        "LLM_SYNTHETIC_RATE": str(RATE),
        "LLM_MAX_NEW_TOKENS": str(ENDLESS),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    process = subprocess.Popen(
        [sys.executable, "manage.py", "llm_service", "--listen", address],
        cwd=ROOT,
        env=kept | own,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    yield {"LLM_SERVICE": address, "LLM_SERVICE_TOKEN": "token"}
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def site(serve: Serve, postgresql: str, own_redis: Redis, service: dict[str, object]) -> Iterator[Processes]:
    environment = service | {
        "DATABASE_URL": postgresql,
        "REDIS_URL": own_redis.url,
        "SECRET_KEY": "of all three",
        "CHAT_MESSAGES_PER_MINUTE": MESSAGES,
    }
    one = serve(**environment)
    sites = [one, serve(beside=one), serve(beside=one)]
    yield Processes(*sites, own_redis, postgresql)
    for each in sites:  # before what they need
        if each.process is not None and each.process.poll() is None:
            each.stop()


@pytest.fixture(autouse=True)
def running(site: Processes) -> None:
    """What an earlier test ended is started again."""
    for each in (site.one, site.two, site.three):
        if each.process is not None and each.process.poll() is not None:
            each.start()


async def ask(socket: Socket, tokens: int = TOKENS, **fields: object) -> Told:
    accepted = await socket.ask("message.send", text="Count", params={"max_new_tokens": tokens}, **fields)
    assert accepted["type"] == "message.accepted", accepted
    return Told(accepted)


async def open_at(socket: Socket, asked: Told, **fields: object) -> Told:
    """Watch an answer that was asked for elsewhere."""
    names = {name: asked.accepted[name] for name in ("conversation", "generation")}
    assert (await socket.ask("conversation.open", **names, **fields))["type"] == "ok"
    return Told(asked.accepted)


async def read(socket: Socket, told: Told, deltas: int | None = None) -> Told:
    """To the end, or until it was told so many deltas."""
    for frame in socket.seen:
        told.take(frame)
    socket.seen.clear()
    while told.end is None and (deltas is None or told.next_seq < deltas):
        told.take(await socket.next())
        socket.seen.clear()
    return told


async def test_a_client_that_reconnects_to_another_process_goes_on_exactly(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as socket:
        told = await ask(socket)
        await read(socket, told, deltas=5)
    async with visitor.at(site.two.url).socket() as socket:
        await open_at(socket, told, next_seq=told.next_seq)
        assert all(frame["type"] != "generation.snapshot" for frame in socket.seen)
        await read(socket, told)
    assert told.text == synthetic_text(TOKENS)
    assert site.stored(told.accepted) == ("length", told.text)


async def test_two_tabs_on_two_processes_hear_of_each_other_and_agree(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking)
        changed = await watching.until("conversation.changed")
        assert changed["conversation"] == told.accepted["conversation"]
        seen = await open_at(watching, told)
        await asyncio.gather(read(asking, told), read(watching, seen))
        assert told.text == seen.text == synthetic_text(TOKENS)
        assert told.end == seen.end
        again = await visitor.at(site.three.url).json(f"/api/conversations/{told.accepted['conversation']}/")
        assert again["messages"][1]["text"] == told.text


async def test_an_answer_is_stopped_from_another_process(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as other:
        told = await ask(asking, ENDLESS)
        await read(asking, told, deltas=3)
        began = time.monotonic()
        assert (await other.ask("generation.stop", generation=told.accepted["generation"]))["type"] == "ok"
        await read(asking, told)
        assert time.monotonic() - began < 1
        assert told.end is not None
        assert told.end["reason"] == "cancelled"
    assert site.stored(told.accepted) == ("cancelled", told.text)


async def test_what_is_not_theirs_is_not_found_at_another_process(site: Processes) -> None:
    async with Visitor(site.one.url).socket() as asking, Visitor(site.two.url).socket() as stranger:
        told = await ask(asking, ENDLESS)
        names = {name: told.accepted[name] for name in ("conversation", "generation")}
        assert (await stranger.ask("conversation.open", **names))["code"] == "not_found"
        assert (await stranger.ask("generation.stop", generation=names["generation"]))["code"] == "not_found"
        await read(asking, told, deltas=3)
        await asking.ask("generation.stop", generation=names["generation"])
        await read(asking, told)


async def test_signing_out_closes_the_sockets_of_that_browser_at_every_process(site: Processes) -> None:
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='x')"
    await asyncio.to_thread(site.one.manage, "shell", "-c", create)
    visitor, same_account = Visitor(site.one.url), Visitor(site.two.url)
    for browser in (visitor, same_account):
        await browser.post("/admin/login/?next=/", username="ada", password="x")
    async with visitor.at(site.two.url).socket() as socket, same_account.socket() as staying:
        began = time.monotonic()
        await visitor.post("/admin/logout/", page="/admin/")
        assert (await socket.until("error"))["code"] == "no_session"
        with pytest.raises(ConnectionClosed) as closed:
            await socket.next()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        assert time.monotonic() - began < 5
        assert (await staying.ask("ping"))["type"] == "pong"


async def test_a_temporary_chat_is_watched_and_gone_on_with_at_another_process(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking, temporary=True)
        seen = await open_at(watching, told)
        await asyncio.gather(read(asking, told), read(watching, seen))
        assert told.text == seen.text == synthetic_text(TOKENS)
        more = await ask(watching, 5, conversation=told.accepted["conversation"])
        await read(watching, more)
    stored = await visitor.at(site.three.url).json(f"/api/conversations/{told.accepted['conversation']}/")
    assert [message["text"] for message in stored["messages"][1::2]] == [told.text, more.text]


async def test_messages_a_minute_count_for_the_whole_site(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as first, visitor.at(site.two.url).socket() as second:
        for socket in (first, second, first, second):
            await read(socket, await ask(socket, 1))
        for socket in (first, second):
            assert (await socket.ask("message.send", text="one more"))["code"] == "rate_limited"


async def test_what_a_killed_and_a_stopped_process_leave_is_ended_by_the_others(site: Processes) -> None:
    visitors = [Visitor(site.one.url), Visitor(site.two.url)]
    async with (
        visitors[0].socket() as of_killed,
        visitors[1].socket() as of_stopped,
        visitors[0].at(site.three.url).socket() as watching,
        visitors[1].at(site.three.url).socket() as watching_too,
    ):
        killed, stopped = await ask(of_killed, ENDLESS), await ask(of_stopped, ENDLESS)
        seen = [await open_at(watching, killed), await open_at(watching_too, stopped)]
        await asyncio.gather(read(of_killed, killed, deltas=3), read(of_stopped, stopped, deltas=3))
        await asyncio.gather(read(watching, seen[0], deltas=40), read(watching_too, seen[1], deltas=40))
        began = time.monotonic()
        await asyncio.to_thread(site.one.stop, signal.SIGKILL)
        site.two.tell(signal.SIGSTOP)
        with pytest.raises(ConnectionClosed):
            await read(of_killed, killed)
        try:
            await asyncio.gather(read(watching, seen[0]), read(watching_too, seen[1]))
            assert 8 < time.monotonic() - began < 16
            for told in seen:
                assert told.end is not None
                assert told.end["reason"] == "interrupted"
                assert site.stored(told.accepted) == ("interrupted", told.text)
                assert synthetic_text(1_000).startswith(told.text)
                assert len(told.text.split()) > RATE / 2  # the checkpoint is a second old at most
        finally:
            site.two.tell(signal.SIGCONT)
        await read(of_stopped, stopped)
        assert stopped.end is not None
        assert stopped.end["reason"] == "interrupted"
        assert site.stored(stopped.accepted) == ("interrupted", seen[1].text)  # not written again
        more = await ask(of_stopped, 10, conversation=stopped.accepted["conversation"])
        await read(of_stopped, more)
        assert site.stored(more.accepted) == ("length", synthetic_text(10))


async def test_while_redis_is_away_the_stored_text_stands_in(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking, ENDLESS)
        seen = await open_at(watching, told)
        await read(watching, seen, deltas=10)
        await asyncio.to_thread(site.redis.kill)
        try:
            behind = len(seen.text)
            while (await watching.until("generation.snapshot"))["text"] == seen.text[:behind]:
                pass  # it has to grow
            refused = await watching.ask("generation.stop", generation=told.accepted["generation"])
            assert refused["code"] == "unavailable"
            page = await visitor.at(site.two.url).get("/")  # sessions come from the database
            assert "<html" in page
            more = await ask(watching, 10)  # counted here
            await read(watching, more)
        finally:
            await asyncio.to_thread(site.redis.start)
        seen = Told(told.accepted)
        while seen.next_seq < 20 or seen.next_seq > 1_000_000:  # numbered as the process that writes it does
            seen.take(await watching.next())
        while (await watching.ask("generation.stop", generation=told.accepted["generation"]))["type"] == "error":
            pass  # its line is not mended yet
        await asyncio.gather(read(asking, told), read(watching, seen))
        assert told.text == seen.text
        assert site.stored(told.accepted) == ("cancelled", told.text)


async def test_a_redis_that_lost_its_data_is_told_again(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking, ENDLESS)
        seen = await open_at(watching, told)
        await read(watching, seen, deltas=5)
        await asyncio.to_thread(site.redis.forget)
        await read(watching, seen, deltas=seen.next_seq + 20)
        while told.end is None:  # until the process that runs it has entered the group again
            assert (await watching.ask("generation.stop", generation=told.accepted["generation"]))["type"] == "ok"
            await read(asking, told, deltas=told.next_seq + RATE // 2)
        await read(watching, seen)
        assert told.text == seen.text


async def test_lost_connections_to_the_database_are_replaced(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking, 3 * RATE)
        seen = await open_at(watching, told)
        for deltas in (10, 40):  # more than a second, and so a checkpoint, between the two
            await read(asking, told, deltas=deltas)
            assert await asyncio.to_thread(site.break_connections) > 0
        await asyncio.gather(read(asking, told), read(watching, seen))
        assert told.text == seen.text == synthetic_text(3 * RATE)
        assert site.stored(told.accepted) == ("length", told.text)
        for socket in (asking, watching):
            more = await ask(socket, 5, conversation=told.accepted["conversation"])
            await read(socket, more)
            assert site.stored(more.accepted) == ("length", synthetic_text(5))


@pytest.mark.long
@pytest.mark.timeout(120)
async def test_an_outage_of_the_database_ends_no_answer(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.socket() as asking, visitor.at(site.two.url).socket() as watching:
        told = await ask(asking, ENDLESS)
        seen = await open_at(watching, told)

        async def read_for(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                before = told.next_seq, seen.next_seq
                await asyncio.gather(
                    read(asking, told, before[0] + RATE // 2), read(watching, seen, before[1] + RATE // 2)
                )
                assert told.end is None

        with site.without_database():
            await read_for(14)
            assert (await asking.ask("message.send", text="And now?"))["code"] == "unavailable"
            assert (await watching.ask("generation.stop", generation=told.accepted["generation"]))[
                "code"
            ] == "unavailable"
            for who, path, status, said in (
                (Visitor(site.one.url), "/", 500, "<h1>Something went wrong</h1>"),
                (visitor, "/api/conversations/", 503, '"code":"unavailable"'),
            ):
                with pytest.raises(urllib.error.HTTPError) as refused:
                    await who.get(path)
                assert (refused.value.code, said in refused.value.read().decode()) == (status, True)
        await read_for(14)  # long enough for everybody to be sure of the others again
        while (await watching.ask("generation.stop", generation=told.accepted["generation"]))["type"] == "error":
            pass
        await asyncio.gather(read(asking, told), read(watching, seen))
        assert told.text == seen.text
        assert site.stored(told.accepted) == ("cancelled", told.text)


async def test_a_process_that_drains_tells_watchers_elsewhere_to_the_end(site: Processes) -> None:
    visitor = Visitor(site.one.url)
    async with visitor.at(site.two.url).socket() as watching:
        async with visitor.socket() as asking:
            told = await ask(asking, ENDLESS)
            seen = await open_at(watching, told)
            await read(watching, seen, deltas=10)
            site.one.tell(signal.SIGTERM)
            await asyncio.gather(read(asking, told), read(watching, seen))
        assert await asyncio.to_thread(site.one.ended) == 0
        assert "Traceback" not in site.one.log.read_text()
        assert seen.end is not None
        assert seen.end["reason"] == "interrupted"
        assert told.text == seen.text
        assert site.stored(told.accepted) == ("interrupted", told.text)
        more = await ask(watching, 5, conversation=told.accepted["conversation"])
        await read(watching, more)
        assert all(frame["type"] != "server.restarting" for frame in watching.seen)
