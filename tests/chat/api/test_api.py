"""What HTTP answers, through the whole stack of Django's middleware."""

from __future__ import annotations

import threading
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from django.contrib.sessions.models import Session
from django.test import AsyncClient, override_settings
from pytest_django import DjangoAssertNumQueries

import llm
from chat import db
from chat.errors import HistoryUnavailable
from chat.history.database import reading
from chat.history.history import History
from chat.history.values import Caller
from chat.visitors import identity
from llm.errors import Unavailable
from llm.events import Finished, Status, Timings, Usage
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def model(controller: ScriptedController, monkeypatch: pytest.MonkeyPatch) -> ScriptedController:
    monkeypatch.setattr(llm, "get_controller", lambda: controller)
    return controller


@pytest.fixture
async def browser(visitor: Caller) -> AsyncClient:
    client = AsyncClient()
    session = await client.asession()
    session["visitor"] = str(visitor.visitor)
    await session.asave()
    return client


async def test_conversations_and_their_messages_are_those_of_the_visitor(
    browser: AsyncClient, history: History, visitor: Caller
) -> None:
    accepted = await history.accept(question(visitor, "Hello"))
    await history.accept(question(a_visitor(), "another's"))
    end = Finished(reason="stop", usage=Usage(completion_tokens=2, left_out_turns=3), timings=Timings(ttft=0.25))
    await accepted.store.finish(accepted.generation, "Hi", end)

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
        "usage": {"prompt_tokens": 0, "cached_tokens": 0, "completion_tokens": 2, "left_out_turns": 3},
        "timings": {"queue_time": None, "ttft": 0.25, "decode_time": None, "tokens_per_second": None},
        "code": None,
        "message": None,
        "model": "",
    }


async def test_what_is_anothers_and_what_is_not_there_look_the_same(browser: AsyncClient, history: History) -> None:
    accepted = await history.accept(question(a_visitor(), "a secret"))
    theirs = await browser.get(f"/api/conversations/{accepted.conversation}/")
    missing = await browser.get(f"/api/conversations/{uuid4()}/")
    assert (theirs.status_code, theirs.content) == (missing.status_code, missing.content)
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")


async def test_without_a_visitor_there_is_nothing_to_see() -> None:
    answer = await AsyncClient().get("/api/conversations/")
    assert (answer.status_code, answer.json()["code"]) == (401, "no_session")


async def test_a_session_that_cannot_be_read_is_not_waited_for_for_ever(
    browser: AsyncClient, visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    monkeypatch.setattr(db, "SECONDS", 0.1)
    monkeypatch.setattr(identity, "of_session", lambda session: answers.wait())
    try:
        answer = await browser.get("/api/conversations/")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        for looking in (identity.remains("key", visitor), identity.of_scope({"session": {}})):
            with pytest.raises(HistoryUnavailable):
                await looking
    finally:
        answers.set()


@pytest.mark.parametrize(
    "after",
    ["nonsense", "2026-01-01T00:00:00+00:00~1", f"2026-01-01T00:00:00~{UUID(int=0)}"]
    + [f"0001-01-01T00:00:00+14:00~{UUID(int=0)}", f"9999-12-31T23:59:59-14:00~{UUID(int=0)}"],  # of no year in UTC
)
async def test_a_wrong_page_is_not_found(browser: AsyncClient, after: str) -> None:
    assert (await browser.get("/api/conversations/", {"after": after})).status_code == 404


BIASES = b", ".join(b'"%d": 1' % token for token in range(301))

CHANGES = (
    ("patch", "/api/conversations/{}/"),
    ("delete", "/api/conversations/{}/"),
    ("post", "/api/conversations/{}/restore/"),
    ("delete", "/api/messages/{}/"),
    ("put", "/api/messages/{}/feedback/"),
    ("delete", "/api/messages/{}/feedback/"),
)


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_change_wants_the_token_of_the_page(browser: AsyncClient, method: str, path: str) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    client.cookies = browser.cookies
    token = (await client.get("/")).cookies["csrftoken"].value
    change = getattr(client, method)
    body = {"data": b"{}", "content_type": "application/json"}
    address = path.format(uuid4())
    assert (await change(address, **body)).status_code == 403
    assert (await change(address, **body, headers={"X-CSRFToken": "x" * 64})).status_code == 403
    assert (await change(address, **body, headers={"X-CSRFToken": token})).status_code in (400, 404)


@pytest.mark.parametrize(("method", "path"), [("get", "/api/conversations/"), *CHANGES])
@override_settings(CHAT_LOGIN_REQUIRED="1")
async def test_where_an_account_is_required_there_is_nothing_without_one(
    browser: AsyncClient, history: History, visitor: Caller, method: str, path: str
) -> None:
    accepted = await history.accept(question(visitor, "Before it was"))
    await accepted.store.finish(accepted.generation, "Hi", Finished(reason="stop"))
    key = accepted.conversation if "conversations" in path else accepted.answer
    answer = await getattr(browser, method)(path.format(key), data={})
    assert (answer.status_code, answer.json()["code"]) == (401, "no_session")
    assert (await history.branch(visitor, accepted.conversation)).messages[1].text == "Hi"


@pytest.mark.parametrize("method", ["patch", "put"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"title": "%s"}' % (b"x" * 3_000_000), 413, "too_large"),
        (b'{"comment": "%s", "value": 1}' % (b"x" * 100_000), 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b'{"settings": {"stop": %s}}' % (b"[" * 100_000), 400, "invalid_request"),
        (
            b'{"settings": {"logit_bias": {%s}}}' % BIASES,
            400,
            "invalid_request",
        ),
        (b'{"settings": {"seed": %s}}' % (b"9" * 10_000), 400, "invalid_request"),
        (b"\xff\xfe", 400, "invalid_request"),
        (b"", 400, "invalid_request"),
    ],
    ids=["3 MB", "a long comment", "depth", "depth of a field", "many biases", "a long number", "no UTF-8", "nothing"],
)
async def test_what_is_too_large_or_no_change_is_said(
    browser: AsyncClient, history: History, visitor: Caller, method: str, body: bytes, status: int, code: str
) -> None:
    accepted = await history.accept(question(visitor, "Hello"))
    feedback = f"/api/messages/{accepted.answer}/feedback/"
    path = f"/api/conversations/{accepted.conversation}/" if method == "patch" else feedback
    answer = await getattr(browser, method)(path, data=body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_list_costs_as_many_queries_whatever_is_in_it(
    visitor: Caller, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    history = History()

    async def ask(text: str) -> None:
        await history.accept(question(visitor, text))

    async_to_sync(ask)("Question")
    for query in ("", "uest"):
        with django_assert_num_queries(2):
            assert len(reading.page(visitor, query=query).conversations) == 1
    for number in range(60):
        async_to_sync(ask)(f"Question {number}")
    for query in ("", "uest"):
        with django_assert_num_queries(2):
            assert len(reading.page(visitor, query=query).conversations) == reading.PAGE_SIZE


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
    assert {"accepted", "refused", "finished", "completion_tokens", "left_out_turns"} <= set(answer)


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
