"""Sessions of a real site: temporary chats through a kill, sign-out, sessions that vanish."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from websockets.exceptions import ConnectionClosed

from llm.backends.synthetic import synthetic_text
from tests.server import Serve, Site
from tests.visitor import Frame, Socket, Visitor

SECRET = "Nobody is to know this"


@pytest.fixture(scope="module")
def site(serve: Serve) -> Iterator[Site]:
    site = serve(LLM_SYNTHETIC_TOKENS=100_000, LLM_SYNTHETIC_RATE=50, CHAT_REVALIDATE_SECONDS=0.4)
    create = "from django.contrib.auth.models import User; User.objects.create_superuser('ada', password='x')"
    site.manage("shell", "-c", create)
    return site


def tables(site: Site) -> str:
    """All rows of all tables but the sessions', as text."""
    with closing(sqlite3.connect(site.var / "db.sqlite3")) as database:
        return "\n".join(line for line in database.iterdump() if "django_session" not in line)


def end_session(site: Site, cookies: str) -> None:
    key = cookies.partition("sessionid=")[2].partition(";")[0]
    with closing(sqlite3.connect(site.var / "db.sqlite3")) as database, database:
        assert database.execute("DELETE FROM django_session WHERE session_key = ?", [key]).rowcount == 1


async def text_of(socket: Socket, accepted: Frame, characters: int) -> str:
    text = ""
    while len(text) < characters:
        text += (await socket.until("generation.delta", generation=accepted["generation"]))["text"]
    return text


async def closed_with(socket: Socket) -> int:
    """It is told why, and closed; the code."""
    assert (await socket.until("error"))["code"] == "no_session"
    with pytest.raises(ConnectionClosed) as closed:
        await socket.next()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_killed_server_leaves_a_temporary_answer_interrupted_and_no_text_in_tables(site: Site) -> None:
    visitor, messages = Visitor(site.url), tables(site).count('INTO "chat_message"')
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text=SECRET, temporary=True)
        await text_of(socket, accepted, 500)  # more than a second's
        await asyncio.to_thread(site.stop, signal.SIGKILL)
    await asyncio.to_thread(site.start)
    stored = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
    question, answer = stored["messages"]
    assert question["text"] == SECRET
    assert answer["generation"]["state"] == "interrupted"
    assert len(answer["text"]) > 100
    assert synthetic_text(1_000).startswith(answer["text"])
    everything = tables(site)
    assert accepted["generation"].replace("-", "") in everything
    assert SECRET not in everything
    assert everything.count('INTO "chat_message"') == messages


async def test_signing_out_closes_the_sockets_of_the_browser_and_ends_its_temporary_answer(site: Site) -> None:
    own, same_account = Visitor(site.url), Visitor(site.url)
    for browser in (own, same_account):
        await browser.post("/admin/login/?next=/", username="ada", password="x")
    async with own.socket() as socket, own.socket() as tab, same_account.socket() as staying:
        accepted = await socket.ask("message.send", text=SECRET, temporary=True)
        kept = await staying.ask("message.send", text="Go on")
        await text_of(tab, accepted, 0)
        began = time.monotonic()
        await own.post("/admin/logout/", page="/admin/")
        assert await asyncio.gather(closed_with(socket), closed_with(tab)) == [4401, 4401]
        assert time.monotonic() - began < 2
        await text_of(staying, kept, 50)
        with closing(sqlite3.connect(site.var / "db.sqlite3")) as database:
            state = ""
            while state != "interrupted":
                await text_of(staying, kept, 20)
                (state,) = database.execute(
                    "SELECT state FROM chat_generation WHERE id = ?", [accepted["generation"].replace("-", "")]
                ).fetchone()
        await staying.ask("generation.stop", generation=kept["generation"])
    assert "Traceback" not in site.log.read_text()


async def test_a_socket_whose_session_vanished_is_closed_and_the_page_begins_anew(site: Site) -> None:
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello")
        await asyncio.to_thread(end_session, site, await visitor.cookies())
        assert await closed_with(socket) == 4401
    await visitor.get("/")
    async with visitor.socket() as socket:
        opened = await socket.ask("conversation.open", conversation=accepted["conversation"])
        assert opened["code"] == "not_found"
