"""Turns over a scripted controller, and sockets into them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.sessions.backends.db import SessionStore
from django.test import AsyncClient, Client
from django.utils import translation
from django.utils.translation import trans_real

from chat import consumers
from chat.consumers import ChatConsumer
from chat.history.history import History
from chat.history.values import Caller, Question
from chat.management import translations
from chat.streams.hub import Hub
from chat.templatetags.catalog import _catalog
from chat.turns.registry import Turns
from tests.chat.doubles import FailingHistory, ScriptedController


@pytest.fixture(autouse=True)
def no_static_files(settings: Any) -> None:
    """Each client has middleware of its own, which would look for a thousand files first."""
    settings.SERVESTATIC_USE_FINDERS = False


@pytest.fixture
def compiled() -> Iterator[None]:
    """The catalogues as `make` compiles them, read anew."""
    for language in translations.languages():
        for domain in translations.DOMAINS:
            translations.compile(language, domain)
    trans_real._translations.clear()  # type: ignore[attr-defined]
    _catalog.cache_clear()
    yield
    translation.activate("en")


@pytest.fixture
def visitor() -> Caller:
    return a_visitor()


@pytest.fixture
def history() -> History:
    return FailingHistory()


@pytest.fixture
async def controller() -> ScriptedController:
    return ScriptedController()


@pytest.fixture
async def turns(controller: ScriptedController, history: History) -> AsyncIterator[Turns]:
    turns = Turns(controller, history, Hub())
    yield turns
    await turns.aclose()


def a_visitor() -> Caller:
    """Someone who has opened the page."""
    return Caller(uuid4(), uuid4().hex)


def again(client: Client | AsyncClient) -> None:
    """Make it a browser that comes again: one that sends a cookie."""
    client.cookies["theme"] = "light"


def question(visitor: Caller, text: str = "Hello", **fields: Any) -> Question:
    return Question(caller=visitor, request_id=fields.pop("request_id", uuid4().hex), text=text, **fields)


class Socket:
    """A client: sends frames as dictionaries, reads them one by one."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self.communicator = communicator
        self.seen: list[dict[str, Any]] = []

    async def send(self, type: str, **fields: Any) -> str:
        id = str(fields.pop("id", uuid4().hex))
        await self.communicator.send_to(text_data=json.dumps({"type": type, "id": id, **fields}))
        return id

    async def send_raw(self, **message: Any) -> None:
        await self.communicator.send_input({"type": "websocket.receive", **message})

    async def next(self) -> dict[str, Any]:
        self.seen.append(json.loads(await self.communicator.receive_from(timeout=5)))
        return self.seen[-1]

    async def until(self, type: str, **fields: Any) -> dict[str, Any]:
        """The next frame of this type with these fields; those before it are passed over."""
        while True:
            frame = await self.next()
            if frame["type"] == type and all(frame.get(name) == value for name, value in fields.items()):
                return frame

    async def ask(self, type: str, **fields: Any) -> dict[str, Any]:
        """Send a frame; its reply."""
        id = await self.send(type, **fields)
        while True:
            frame = await self.next()
            if frame.get("id") == id:
                return frame


Connect = Callable[[Caller | None], AbstractAsyncContextManager[Socket]]


@pytest.fixture
def connect(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Open sockets of a visitor: `async with connect(visitor) as socket`."""
    monkeypatch.setattr(consumers, "get_turns", lambda: turns)

    @asynccontextmanager
    async def opened(visitor: Caller | None) -> AsyncIterator[Socket]:
        session = SessionStore()
        if visitor is not None:
            await session.aset("visitor", str(visitor.visitor))
            await session.aset("temporary", visitor.temporary)
            await session.asave()
        communicator = WebsocketCommunicator(ChatConsumer.as_asgi(), "/ws/chat/")
        communicator.scope["session"] = SessionStore(session.session_key)
        accepted, _ = await communicator.connect(timeout=5)
        assert accepted
        try:
            yield Socket(communicator)
        finally:
            if not communicator.future.done():
                await communicator.disconnect(timeout=5)

    return opened
