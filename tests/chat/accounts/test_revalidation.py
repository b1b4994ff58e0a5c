"""A socket lives no longer than its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import OperationalError
from django.test import AsyncClient, override_settings

from chat import consumers, middleware
from chat.accounts import revalidation
from chat.accounts.revalidation import Revalidation
from chat.consumers import ChatConsumer
from chat.history.values import Caller
from chat.turns.registry import Turns
from chat.visitors import identity
from llm.events import Finished
from tests.chat.conftest import Connect, Socket, again
from tests.chat.doubles import ScriptedController, Timers

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(revalidation, "later", timers.later)
    return timers


class Browser:
    """Pages and sockets of one session."""

    def __init__(self, turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(consumers, "get_turns", lambda: turns)
        monkeypatch.setattr(middleware, "get_turns", lambda: turns)
        monkeypatch.setattr(middleware, "GRACE", 0.0)
        self.client = AsyncClient()
        again(self.client)

    async def sign_in(self, user: User) -> None:
        await self.client.aforce_login(user)

    @property
    def key(self) -> str:
        return self.client.cookies["sessionid"].value

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[Socket]:
        await self.client.get("/")
        communicator = WebsocketCommunicator(ChatConsumer.as_asgi(), "/ws/chat/")
        communicator.scope["session"] = SessionStore(self.key)
        assert (await communicator.connect(timeout=5))[0]
        socket = Socket(communicator)
        await socket.until("status")
        yield socket
        if not communicator.future.done():
            await communicator.disconnect(timeout=5)


NewBrowser = Callable[[], Browser]


@pytest.fixture
def browser(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> NewBrowser:
    return lambda: Browser(turns, monkeypatch)


@pytest.fixture
async def ada() -> User:
    return await sync_to_async(User.objects.create_user)("ada", password="x")


async def closed(socket: Socket) -> int:
    """It is told why, and closed; the code."""
    assert (await socket.until("error"))["code"] == "no_session"
    message = await socket.communicator.receive_output(timeout=5)
    assert message["type"] == "websocket.close"
    return int(message["code"])


async def stays(socket: Socket) -> bool:
    return (await socket.ask("ping"))["type"] == "pong"


async def end(browser: Browser, ada: User) -> None:
    await Session.objects.filter(pk=browser.key).adelete()


async def disable(browser: Browser, ada: User) -> None:
    ada.is_active = False
    await ada.asave()


async def change_password(browser: Browser, ada: User) -> None:
    ada.set_password("y")
    await ada.asave()


async def change_hands(browser: Browser, ada: User) -> None:
    session = SessionStore(browser.key)
    await session.aset("visitor", str(uuid4()))
    await session.asave()


@pytest.mark.parametrize("what", [end, disable, change_password, change_hands])
async def test_a_socket_whose_session_is_not_the_visitors_any_more_is_closed(
    browser: NewBrowser, timers: Timers, ada: User, what: Callable[[Browser, User], Awaitable[None]]
) -> None:
    own, other = browser(), browser()
    await own.sign_in(ada)
    async with own.socket() as socket, other.socket() as unconcerned:
        await what(own, ada)
        timers.ring()
        assert await closed(socket) == 4401
        assert await stays(unconcerned)
    async with own.socket() as again:  # the page fetches a session first
        assert await stays(again)


async def test_a_session_that_its_account_does_not_want_opens_and_reads_nothing(
    browser: NewBrowser, connect: Connect, ada: User
) -> None:
    own = browser()
    await own.sign_in(ada)
    async with own.socket() as socket:
        await socket.ask("message.send", text="Hello")
    key, before = own.key, (await own.client.asession())
    visitor = Caller(UUID(await before.aget("visitor")), await before.aget("temporary"))
    assert len((await own.client.get("/api/conversations/")).json()["conversations"]) == 1
    await change_password(own, ada)
    assert not await identity.remains(key, visitor)
    assert (await own.client.get("/api/conversations/")).status_code == 401
    assert own.key == key  # no page was fetched yet
    communicator = WebsocketCommunicator(ChatConsumer.as_asgi(), "/ws/chat/")
    communicator.scope["session"] = SessionStore(key)
    await communicator.connect(timeout=5)
    assert await closed(Socket(communicator)) == 4401
    await own.client.get("/")
    assert (await own.client.get("/api/conversations/")).json()["conversations"] == []


async def test_a_rotated_secret_key_ends_nothing(browser: NewBrowser, timers: Timers, ada: User) -> None:
    own = browser()
    await own.sign_in(ada)
    async with own.socket() as socket:
        with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            timers.ring()
            assert await stays(socket)
        assert await Session.objects.filter(pk=own.key).aexists()


async def test_a_socket_looks_again_and_again_and_stops_with_its_end(
    browser: NewBrowser, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: asyncio.Queue[str] = asyncio.Queue()
    look = identity.remains

    async def remains(key: str, caller: Caller) -> bool:
        looked.put_nowait(key)
        return await look(key, caller)

    monkeypatch.setattr(identity, "remains", remains)
    with override_settings(CHAT_REVALIDATE_SECONDS="40"):
        async with browser().socket() as socket:
            (first,) = timers.running
            assert 20 <= first <= 40
            for _ in range(3):
                timers.ring()
                await looked.get()
                assert await timers.some() == [40]
            assert await stays(socket)
    assert timers.running == []


async def test_a_database_that_is_away_closes_nothing(
    browser: NewBrowser, timers: Timers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: object) -> bool:
        raise OperationalError("the connection is closed")

    async with browser().socket() as socket:
        monkeypatch.setattr(identity, "remains", away)
        timers.ring()
        assert len(await timers.some()) == 1
        assert await stays(socket)
    assert "could not be looked at" in caplog.text


async def test_signing_out_closes_the_sockets_of_this_browser_at_once(
    browser: NewBrowser, timers: Timers, ada: User, controller: ScriptedController
) -> None:
    own, other = browser(), browser()
    ada.is_staff = True
    await ada.asave()
    await own.sign_in(ada)
    await other.sign_in(ada)
    async with own.socket() as one, own.socket() as two, other.socket() as elsewhere:
        accepted = await elsewhere.ask("message.send", text="Hello")
        await own.client.post("/admin/logout/")
        assert await closed(one) == 4401
        assert await closed(two) == 4401
        assert await stays(elsewhere)
        await controller.tickets[0].say("Hi")
        await elsewhere.until("generation.delta", generation=accepted["generation"])


async def test_signing_in_hands_the_rows_over_and_the_answer_goes_on(
    browser: NewBrowser, timers: Timers, ada: User, controller: ScriptedController
) -> None:
    account, own = browser(), browser()
    await account.sign_in(ada)
    async with account.socket() as socket:  # the account has a visitor already
        await socket.ask("message.send", text="Of the account")
    async with own.socket() as socket:
        accepted = await socket.ask("message.send", text="Of the browser")
        await sync_to_async(ada.set_password)("x")
        ada.is_staff = True
        await ada.asave()
        answer = await own.client.post("/admin/login/?next=/", {"username": "ada", "password": "x"})
        assert answer.status_code == 302
        assert await closed(socket) == 4401
    async with own.socket() as again:
        opened = {"conversation": accepted["conversation"], "generation": accepted["generation"]}
        assert (await again.ask("conversation.open", **opened))["type"] == "ok"
        await controller.tickets[1].say("Still here")
        while (await again.next()).get("text") != "Still here":
            pass
    async with own.socket() as list_only:  # its end is told to the account
        await controller.tickets[1].tell(Finished(reason="stop"))
        await list_only.until("conversation.changed", conversation=accepted["conversation"])


async def test_asked_while_it_asks_it_asks_once_more() -> None:
    answers: asyncio.Queue[bool] = asyncio.Queue()
    ended = asyncio.Event()
    asked = Revalidation(1000, answers.get, ended.set)
    asked.now()
    await asyncio.sleep(0)
    for _ in range(3):
        asked.now()  # the answer under way may be from before
    answers.put_nowait(True)
    answers.put_nowait(False)
    await ended.wait()
    asked.close()
