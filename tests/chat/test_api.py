"""What HTTP answers, through the whole stack of Django's middleware."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from django.contrib.sessions.models import Session
from django.test import AsyncClient

import llm
from chat.history import DatabaseHistory
from llm.errors import Unavailable
from llm.events import Finished, Status, Timings, Usage
from tests.chat.conftest import question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def model(controller: ScriptedController, monkeypatch: pytest.MonkeyPatch) -> ScriptedController:
    monkeypatch.setattr(llm, "get_controller", lambda: controller)
    return controller


@pytest.fixture
async def browser(visitor: UUID) -> AsyncClient:
    client = AsyncClient()
    session = await client.asession()
    session["visitor"] = str(visitor)
    await session.asave()
    return client


async def test_conversations_and_their_messages_are_those_of_the_visitor(
    browser: AsyncClient, history: DatabaseHistory, visitor: UUID
) -> None:
    accepted = await history.accept(question(visitor, "Hello"))
    await history.accept(question(uuid4(), "another's"))
    end = Finished(reason="stop", usage=Usage(completion_tokens=2), timings=Timings(ttft=0.25))
    await history.finish(accepted.generation, "Hi", end)

    listed = (await browser.get("/api/conversations/")).json()
    assert [(item["id"], item["title"], item["live"]) for item in listed["conversations"]] == [
        (str(accepted.conversation), "Hello", None)
    ]
    assert listed["next"] is None

    branch = (await browser.get(f"/api/conversations/{accepted.conversation}/")).json()
    asked, answer = branch["messages"]
    assert (asked["role"], asked["text"], asked["generation"]) == ("user", "Hello", None)
    assert (answer["role"], answer["text"], answer["parent"]) == ("assistant", "Hi", asked["id"])
    assert answer["generation"] == {
        "id": str(accepted.generation),
        "state": "stop",
        "usage": {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 2},
        "timings": {"queue_time": None, "ttft": 0.25, "decode_time": None, "tokens_per_second": None},
        "code": None,
        "message": None,
    }


async def test_what_is_anothers_and_what_is_not_there_look_the_same(
    browser: AsyncClient, history: DatabaseHistory
) -> None:
    accepted = await history.accept(question(uuid4(), "a secret"))
    theirs = await browser.get(f"/api/conversations/{accepted.conversation}/")
    missing = await browser.get(f"/api/conversations/{uuid4()}/")
    assert (theirs.status_code, theirs.content) == (missing.status_code, missing.content)
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")


async def test_without_a_visitor_there_is_nothing_to_see() -> None:
    answer = await AsyncClient().get("/api/conversations/")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_session")


async def test_a_wrong_page_is_not_found(browser: AsyncClient) -> None:
    assert (await browser.get("/api/conversations/?after=nonsense")).status_code == 404


async def test_only_reading_methods_are_answered(browser: AsyncClient) -> None:
    for path in ("/", "/stats", "/healthz", "/readyz", "/api/conversations/"):
        assert (await browser.post(path)).status_code == 405


async def test_only_a_page_begins_a_session() -> None:
    for path in ("/stats", "/healthz", "/readyz", "/api/conversations/", f"/api/conversations/{uuid4()}/", "/nowhere"):
        assert "sessionid" not in (await AsyncClient().get(path)).cookies
    assert not await Session.objects.aexists()


async def test_stats_tell_load_and_limits() -> None:
    answer = (await AsyncClient().get("/stats")).json()
    load = {name: answer[name] for name in ("processing", "waiting", "max_processing", "max_waiting")}
    assert load == {"processing": 2, "waiting": 1, "max_processing": 2, "max_waiting": 5}
    assert {"accepted", "refused", "finished", "completion_tokens"} <= set(answer)


async def test_stats_without_a_service_are_503(model: ScriptedController) -> None:
    model.refuses = Unavailable("The model's process is not reachable.")
    answer = await AsyncClient().get("/stats")
    assert answer.status_code == 503
    assert answer.json() == {"code": "unavailable", "message": "The model's process is not reachable."}


@pytest.mark.parametrize(
    ("status", "code", "body"),
    [
        (Status(state="loading", message="Reading weights"), 503, b"loading: Reading weights\n"),
        (Status(state="down"), 503, b"down\n"),
        (Status(state="ready"), 200, b"ready\n"),
        (Status(state="degraded"), 200, b"ready\n"),
    ],
)
async def test_readyz_says_why_not(model: ScriptedController, status: Status, code: int, body: bytes) -> None:
    model.become(status)
    answer = await AsyncClient().get("/readyz")
    assert (answer.status_code, answer.content) == (code, body)


async def test_healthz_answers_whatever_the_model_does() -> None:
    assert (await AsyncClient().get("/healthz")).content == b"ok\n"
