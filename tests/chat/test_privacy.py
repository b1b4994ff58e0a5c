"""Nobody reads, stops or changes what is not theirs, whatever frame or URL they use."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.core import serializers
from django.test import AsyncClient

import llm
from chat.api import conversations as api
from chat.history.values import Accepted, Caller
from chat.models import Conversation, Feedback, Generation, Message
from chat.turns.registry import Turns
from chat.urls import urlpatterns
from tests.chat.conftest import Connect, a_visitor, question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)

REQUESTS = [
    ("GET", "c/<uuid:conversation>/", None),
    ("GET", "api/conversations/<uuid:conversation>/", None),
    ("PATCH", "api/conversations/<uuid:conversation>/", {"title": "Mine", "pinned": True}),
    ("PATCH", "api/conversations/<uuid:conversation>/", {"settings": {"system": "Obey."}}),
    ("DELETE", "api/conversations/<uuid:conversation>/", None),
    ("POST", "api/conversations/<uuid:conversation>/restore/", None),
    ("DELETE", "api/messages/<uuid:message>/", None),
    ("PUT", "api/messages/<uuid:message>/feedback/", {"value": -1}),
    ("DELETE", "api/messages/<uuid:message>/feedback/", None),
    ("GET", "c/<uuid:conversation>/export.md", None),
    ("GET", "c/<uuid:conversation>/export.json", None),
]

FRAMES = [
    ("message.send", {"text": "x", "conversation": "conversation"}),
    ("message.send", {"text": "x", "parent": "answer", "conversation": "conversation"}),
    ("message.regenerate", {"message": "answer"}),
    ("message.continue", {"message": "answer"}),
    ("generation.stop", {"generation": "generation"}),
    ("conversation.open", {"conversation": "conversation"}),
    ("conversation.open", {"conversation": "conversation", "generation": "generation"}),
]


@pytest.fixture(autouse=True)
def site(turns: Turns, controller: ScriptedController, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "get_controller", lambda: controller)
    monkeypatch.setattr(api, "get_turns", lambda: turns)


@pytest.fixture
async def theirs(turns: Turns, visitor: Caller) -> Accepted:
    """A conversation with an answer under way."""
    return await turns.start(question(visitor, "A secret"), llm.SamplingParams(), 0.0)


async def browser_of(caller: Caller | None) -> AsyncClient:
    client = AsyncClient()
    if caller is not None:
        session = await client.asession()
        session["visitor"], session["temporary"] = str(caller.visitor), caller.temporary
        await session.asave()
    return client


async def rows() -> str:
    kept = [row for model in (Conversation, Message, Feedback) async for row in model.objects.all()]
    return str(serializers.serialize("json", kept)) + str(await Generation.objects.acount())


async def request(client: AsyncClient, method: str, route: str, body: Any, theirs: Accepted) -> Any:
    path = "/" + re.sub(r"<uuid:(\w+)>", lambda key: str(getattr(theirs, key[1])), route)
    content = b"" if body is None else msgspec.json.encode(body)
    return await client.generic(method, path, content, content_type="application/json")


def test_the_table_has_all_addresses_that_name_something() -> None:
    routes = {str(each.pattern) for each in urlpatterns if "<" in str(each.pattern)}
    assert routes == {route for _, route, _ in REQUESTS}


@pytest.mark.parametrize(("method", "route", "body"), REQUESTS)
async def test_a_request_for_what_is_anothers_finds_and_changes_nothing(
    theirs: Accepted, visitor: Caller, controller: ScriptedController, method: str, route: str, body: Any
) -> None:
    before = await rows()
    stranger = await browser_of(a_visitor())
    answer = await request(stranger, method, route, body, theirs)
    gone = msgspec.structs.replace(theirs, conversation=uuid4(), message=uuid4())
    missing = await request(stranger, method, route, body, gone)
    assert (answer.status_code, missing.status_code) == (404, 404)
    assert b"secret" not in answer.content
    if not route.startswith("c/<uuid:conversation>/") or "export" in route:
        assert answer.content == missing.content
        assert (await request(await browser_of(None), method, route, body, theirs)).status_code == 401
    assert await rows() == before
    assert not controller.tickets[-1].cancelled
    if method != "POST":  # nothing is deleted that could come back
        own = await request(await browser_of(visitor), method, route, body, theirs)
        assert own.status_code in (200, 404 if "feedback" in route else 409 if "messages" in route else 200)


@pytest.mark.parametrize(("type", "fields"), FRAMES)
async def test_a_frame_about_what_is_anothers_finds_and_changes_nothing(
    connect: Connect, theirs: Accepted, controller: ScriptedController, type: str, fields: dict[str, str]
) -> None:
    before = await rows()
    filled = {name: str(getattr(theirs, key, key)) for name, key in fields.items()}
    async with connect(a_visitor()) as socket:
        reply = await socket.ask(type, **filled)
        assert (reply["type"], reply["code"]) == ("error", "not_found")
        assert not any(frame["type"].startswith("generation.") for frame in socket.seen)
    assert await rows() == before
    assert not controller.tickets[0].cancelled
