"""What a visitor changes in their conversations over HTTP."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import AsyncClient, override_settings
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

import llm
from chat.api import conversations as api
from chat.history import prompt
from chat.history.database import edits, reading
from chat.history.history import History
from chat.history.tree import latest_end, subtree
from chat.history.values import Accepted, Caller, ConversationSettings, Redo
from chat.models import Conversation, Message
from chat.retention import DELETED, purge
from chat.turns.registry import Turns
from llm.conf import Settings as LlmSettings
from llm.events import Finished
from llm.request import ChatMessage
from tests.chat.conftest import Connect, a_visitor, question
from tests.chat.doubles import FaultyLayer, ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def turns_of_site(turns: Turns, controller: ScriptedController, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm, "get_controller", lambda: controller)
    monkeypatch.setattr(api, "get_turns", lambda: turns)


@pytest.fixture
async def browser(visitor: Caller) -> AsyncClient:
    return await browser_of(visitor)


async def browser_of(visitor: Caller) -> AsyncClient:
    client = AsyncClient()
    session = await client.asession()
    session["visitor"] = str(visitor.visitor)
    session["temporary"] = visitor.temporary
    await session.asave()
    return client


class Talk:
    """Questions of one visitor, answered at once."""

    def __init__(self, history: History, visitor: Caller) -> None:
        self.history = history
        self.visitor = visitor

    async def ask(self, text: str, **fields: Any) -> Accepted:
        return await self._answered(await self.history.accept(question(self.visitor, text, **fields)))

    async def redo(self, answer: UUID) -> Accepted:
        return await self._answered(
            await self.history.accept(Redo(caller=self.visitor, request_id=uuid4().hex, answer=answer))
        )

    async def _answered(self, accepted: Accepted) -> Accepted:
        await accepted.store.finish(accepted.generation, "An answer", Finished(reason="stop"))
        return accepted


@pytest.fixture
def talk(history: History, visitor: Caller) -> Talk:
    return Talk(history, visitor)


async def branch_of(browser: AsyncClient, conversation: UUID, asked: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await browser.get(f"/api/conversations/{conversation}/{asked}")).json()
    return found


async def change(browser: AsyncClient, conversation: UUID, **changes: Any) -> int:
    path = f"/api/conversations/{conversation}/"
    return (await browser.patch(path, msgspec.json.encode(changes), content_type="application/json")).status_code


async def titles(browser: AsyncClient, asked: str = "") -> list[str]:
    return [item["title"] for item in (await browser.get(f"/api/conversations/{asked}")).json()["conversations"]]


async def test_a_title_a_pin_and_a_search_find_a_conversation(browser: AsyncClient, talk: Talk) -> None:
    first = await talk.ask("One")
    await talk.ask("日本語の話")
    assert await titles(browser) == ["日本語の話", "One"]
    assert await change(browser, first.conversation, title=" Renamed ", pinned=True) == 200
    assert await titles(browser) == ["Renamed", "日本語の話"]
    assert await titles(browser, "?query=renam") == ["Renamed"]
    assert await titles(browser, "?query=本語") == ["日本語の話"]
    assert await titles(browser, "?query=AN ANSWER") == ["Renamed", "日本語の話"]
    assert await titles(browser, "?query=nowhere") == []
    for wrong in ({"title": " "}, {"title": "x" * 61}, {"settings": {"temperature": 9}}, {"unknown": 1}):
        assert await change(browser, first.conversation, **wrong) == 400


async def test_branches_are_stepped_through_to_their_latest_end(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    two = await talk.ask("Two", conversation=one.conversation)
    other = await talk.ask("Other", conversation=one.conversation, branches=True, parent=one.answer)
    again = await talk.redo(other.answer)
    messages = (await branch_of(browser, one.conversation))["messages"]
    assert [message["text"] for message in messages] == ["One", "An answer", "Other", "An answer"]
    assert messages[2]["siblings"] == [str(two.message), str(other.message)]
    assert messages[3]["siblings"] == [str(other.answer), str(again.answer)]
    await change(browser, one.conversation, shown=str(two.message))
    assert [each["id"] for each in (await branch_of(browser, one.conversation))["messages"]][-1] == str(two.answer)
    await change(browser, one.conversation, shown=str(other.message))
    assert [each["id"] for each in (await branch_of(browser, one.conversation))["messages"]][-1] == str(again.answer)
    assert await change(browser, one.conversation, shown=str(uuid4())) == 404


async def test_a_deleted_message_takes_what_follows_and_shows_what_is_beside(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    two = await talk.ask("Two", conversation=one.conversation)
    other = await talk.ask("Other", conversation=one.conversation, branches=True, parent=one.answer)
    assert (await browser.delete(f"/api/messages/{other.message}/")).status_code == 200
    assert [each["id"] for each in (await branch_of(browser, one.conversation))["messages"]][-1] == str(two.answer)
    await browser.delete(f"/api/messages/{two.answer}/")
    assert [each["id"] for each in (await branch_of(browser, one.conversation))["messages"]][-1] == str(two.message)
    await browser.delete(f"/api/messages/{one.message}/")
    assert await titles(browser) == []
    assert not await Message.objects.aexists()


async def test_a_message_under_way_is_not_deleted(browser: AsyncClient, history: History, visitor: Caller) -> None:
    accepted = await history.accept(question(visitor, "One"))
    answer = await browser.delete(f"/api/messages/{accepted.message}/")
    assert (answer.status_code, answer.json()["code"]) == (409, "turn_in_progress")


async def test_a_deletion_can_be_undone_for_a_minute_and_is_for_good_then(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    path = f"/api/conversations/{one.conversation}/"
    assert "undo_until" in (await browser.delete(path)).json()
    assert await titles(browser) == []
    assert (await browser.get(path)).status_code == 404
    assert await change(browser, one.conversation, title="x") == 404
    assert (await browser.delete(path)).status_code == 404
    assert await _purged() == 0
    assert (await browser.post(f"{path}restore/")).status_code == 200
    assert await titles(browser) == ["One"]
    await browser.delete(path)
    row = await Conversation.objects.aget()
    assert row.deleted is not None
    await Conversation.objects.aupdate(deleted=row.deleted - DELETED - timedelta(seconds=1))
    assert await _purged() == 1
    assert (await browser.post(f"{path}restore/")).status_code == 404
    assert not await Message.objects.aexists()


async def _purged() -> int:
    return (await sync_to_async(purge)()).conversations


async def test_an_answer_under_way_is_stopped_with_its_conversation(
    browser: AsyncClient, turns: Turns, visitor: Caller, controller: ScriptedController
) -> None:
    accepted = await turns.start(question(visitor, "One"), llm.SamplingParams(), 0.0)
    assert (await browser.delete(f"/api/conversations/{accepted.conversation}/")).status_code == 200
    assert controller.tickets[-1].cancelled


async def test_what_is_deleted_is_said_to_be_whether_its_answer_can_be_stopped_or_not(
    browser: AsyncClient, turns: Turns, visitor: Caller, connect: Connect
) -> None:
    accepted = await History(process=uuid4()).accept(question(visitor, "One"))  # another process writes it
    layer = FaultyLayer()
    turns.meet(layer, uuid4())
    layer.go()
    async with connect(visitor) as socket:
        answer = await browser.delete(f"/api/conversations/{accepted.conversation}/")
        assert (answer.status_code, list(answer.json())) == (200, ["undo_until"])
        await socket.until("conversation.changed", conversation=str(accepted.conversation))
    assert await titles(browser) == []
    await turns.part()


async def test_answers_are_rated_and_comments_kept(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    path = f"/api/messages/{one.answer}/feedback/"
    for rating in ({"value": 1}, {"value": -1, "comment": "Wrong"}):
        answer = await browser.put(path, msgspec.json.encode(rating), content_type="application/json")
        assert answer.status_code == 200
        assert (await branch_of(browser, one.conversation))["messages"][1]["feedback"] == rating
    assert (await browser.put(path, b'{"value": 5}', content_type="application/json")).status_code == 400
    on_question = f"/api/messages/{one.message}/feedback/"
    assert (await browser.put(on_question, b'{"value": 1}', content_type="application/json")).status_code == 404
    assert (await browser.delete(path)).status_code == 200
    assert (await branch_of(browser, one.conversation))["messages"][1]["feedback"] is None


async def test_settings_are_kept_and_used(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One", settings=ConversationSettings(system="Be brief.", temperature=0.5))
    assert one.settings.params == llm.SamplingParams(temperature=0.5)
    assert one.prompt[0] == ChatMessage("system", "Be brief.")
    settings = {"system": "Be long.", "stop": ["\n\n"], "seed": 7}
    assert await change(browser, one.conversation, settings=settings) == 200
    assert (await branch_of(browser, one.conversation))["settings"] == settings
    two = await talk.ask("Two", conversation=one.conversation)
    assert two.settings.params == llm.SamplingParams(stop=("\n\n",), seed=7)
    assert [message.role for message in two.prompt] == ["system", "user", "assistant", "user"]


async def test_a_long_branch_comes_in_pages_from_its_end(browser: AsyncClient, talk: Talk) -> None:
    accepted = await talk.ask("0")
    for number in range(1, 60):
        accepted = await talk.ask(str(number), conversation=accepted.conversation)
    asked, texts, before = "", [], None
    while True:
        branch = await branch_of(browser, accepted.conversation, asked)
        texts[:0] = [message["text"] for message in branch["messages"] if message["role"] == "user"]
        if branch["earlier"] is None:
            break
        before = branch["earlier"]
        asked = f"?before={before}"
    assert texts == [str(number) for number in range(60)]
    assert before is not None
    assert (await browser.get(f"/api/conversations/{accepted.conversation}/?before={uuid4()}")).status_code == 404
    exported = (await browser.get(f"/c/{accepted.conversation}/export.json")).json()
    assert len(exported["messages"]) == 120


async def test_an_export_has_the_texts_as_they_were_written(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask('A "quoted" **title**\nand 本文', settings=ConversationSettings(system="Be brief."))
    answer = await browser.get(f"/c/{one.conversation}/export.md")
    assert answer["Content-Type"] == "text/markdown; charset=utf-8"
    assert answer["Content-Disposition"].startswith("attachment; ")
    text = answer.content.decode()
    assert text.startswith('# A "quoted" **title**\n\n## System prompt\n\nBe brief.\n\n## You, ')
    assert 'A "quoted" **title**\nand 本文' in text
    assert text.endswith("UTC\n\nAn answer\n")


@pytest.mark.usefixtures("compiled")
async def test_the_headings_of_an_export_are_in_the_visitors_language(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("You and I", settings=ConversationSettings(system="Be brief."))
    address = f"/c/{one.conversation}/export.md"
    for language, headings in (
        ("en", ["You and I", "System prompt", "You", "Answer"]),
        ("ja", ["You and I", "システムプロンプト", "あなた", "回答"]),
    ):
        text = (await browser.get(address, headers={"accept_language": language})).content.decode()
        assert re.findall(r"^#+ ([^,\n]+)", text, re.MULTILINE) == headings


async def test_nobody_changes_what_is_anothers(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    stranger = await browser_of(a_visitor())
    paths = (f"/api/conversations/{one.conversation}/", f"/api/messages/{one.answer}/")
    assert await change(stranger, one.conversation, title="Mine") == 404
    assert [(await stranger.delete(path)).status_code for path in paths] == [404, 404]
    rated = await stranger.put(f"{paths[1]}feedback/", b'{"value": 1}', content_type="application/json")
    assert rated.status_code == 404
    assert (await stranger.get(f"/c/{one.conversation}/export.md")).status_code == 404
    await browser.delete(paths[0])
    assert (await stranger.post(f"{paths[0]}restore/")).status_code == 404
    assert (await browser.post(f"{paths[0]}restore/")).status_code == 200


async def test_a_change_without_the_token_is_refused(talk: Talk, visitor: Caller) -> None:
    one = await talk.ask("One")
    client = AsyncClient(enforce_csrf_checks=True)
    client.cookies = (await browser_of(visitor)).cookies
    assert (await client.delete(f"/api/conversations/{one.conversation}/")).status_code == 403


trees = st.lists(st.integers(min_value=-1, max_value=30), min_size=1, max_size=30)


@given(trees)
def test_ends_and_subtrees_of_any_tree(chosen: list[int]) -> None:
    keys = [uuid4() for _ in chosen]
    parents = {keys[at]: None if parent < 0 or at == 0 else keys[parent % at] for at, parent in enumerate(chosen)}
    for key in keys:
        gone = subtree(parents, key)
        end = latest_end(parents, key)
        assert end in gone
        assert not any(parent == end for parent in parents.values())
        assert all((parents[each] in gone) == (each in gone) for each in keys if each != key)


@pytest.mark.parametrize(
    "changes",
    [
        b'{"title": 1}',
        b'{"title": ""}',
        b'{"title": "a\\u0000b"}',
        b'{"pinned": "yes"}',
        b'{"shown": "x"}',
        b'{"settings": {"system": "a\\u0000b"}}',
        b'{"settings": {"stop": ["\\u0000"]}}',
        b'{"settings": {"top_k": -1}}',
        b'{"settings": null}',
        b'{"title": "\\ud800"}',
        b"[]",
        b"{",
        b"\xff",
        b"",
    ],
)
async def test_what_cannot_be_done_is_said_and_not_done(browser: AsyncClient, talk: Talk, changes: bytes) -> None:
    one = await talk.ask("One")
    answer = await browser.patch(f"/api/conversations/{one.conversation}/", changes, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert answer.json()["message"]
    assert await titles(browser) == ["One"]
    rated = b'{"value": 1, "comment": "\\u0000"}'
    path = f"/api/messages/{one.answer}/feedback/"
    assert (await browser.put(path, rated, content_type="application/json")).status_code == 400


async def test_nothing_is_a_change_too_and_lines_of_a_title_are_one(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    assert await change(browser, one.conversation) == 200
    assert await change(browser, one.conversation, title=" a\n\tb ") == 200
    assert await titles(browser) == ["a b"]


async def test_a_search_looks_for_what_was_typed(browser: AsyncClient, talk: Talk) -> None:
    await talk.ask("50% of it")
    await talk.ask("under_score")
    await talk.ask("back\\slash")
    assert await titles(browser, "?query=%25") == ["50% of it"]
    assert await titles(browser, "?query=r_s") == ["under_score"]
    assert await titles(browser, "?query=k%5Cs") == ["back\\slash"]
    assert await titles(browser, "?query=sl%00ash") == ["back\\slash"]
    for after in ("2020-01-01T00:00:00~" + str(uuid4()), "~", "%00", "2020-01-01T00:00:00%2B00:00~x"):
        assert (await browser.get(f"/api/conversations/?after={after}")).status_code == 404


async def test_changes_at_the_same_time_are_all_made(browser: AsyncClient, talk: Talk) -> None:
    one = await talk.ask("One")
    two = await talk.ask("Two", conversation=one.conversation, branches=True, parent=None)
    changes: list[dict[str, Any]] = [{"title": "x"}, {"pinned": True}, {"shown": str(one.message)}] * 4
    assert await asyncio.gather(*(change(browser, one.conversation, **each) for each in changes)) == [200] * 12
    branch = await branch_of(browser, one.conversation)
    assert (branch["conversation"]["title"], branch["conversation"]["pinned"]) == ("x", True)
    assert branch["messages"][-1]["id"] == str(one.answer) != str(two.answer)


async def test_a_branch_is_read_anew_when_messages_go_while_it_is_read(
    browser: AsyncClient, talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await talk.ask("One")
    two = await talk.ask("Two", conversation=one.conversation)
    parents_of, deleted = reading.parents_of, []

    def deleting(conversation: UUID) -> dict[UUID, UUID | None]:
        found = parents_of(conversation)
        if not deleted:
            deleted.append(two.message)
            edits.delete_message(talk.visitor, two.message)
        return found

    monkeypatch.setattr(reading, "parents_of", deleting)
    assert [each["text"] for each in (await branch_of(browser, one.conversation))["messages"]] == ["One", "An answer"]


async def test_a_long_conversation_costs_as_many_queries_as_a_short_one(
    browser: AsyncClient, talk: Talk, visitor: Caller
) -> None:
    one = await talk.ask("One")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            reading.branch(visitor, one.conversation)
            reading.page(visitor)
        return len(captured)

    few = await sync_to_async(queries)()
    parent = await Message.objects.aget(pk=one.answer)
    for number in range(500):
        for role in (Message.Role.USER, Message.Role.ASSISTANT):
            parent = Message(conversation_id=one.conversation, parent=parent, role=role, text=f"{number} " * 100)
            await parent.asave()
    await Conversation.objects.aupdate(head=parent)
    assert await sync_to_async(queries)() == few <= 7
    before = time.perf_counter()
    branch = await branch_of(browser, one.conversation)
    took = time.perf_counter() - before
    assert len(branch["messages"]) == 50
    assert took < 2, f"{took:.3f} s"


@pytest.mark.parametrize(
    ("policy", "told"), [("extend", "Be honest.\n\nBe brief."), ("replace", "Be brief."), ("fixed", None)]
)
async def test_the_operator_says_what_a_system_prompt_does(
    browser: AsyncClient, talk: Talk, policy: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt, "llm_settings", lambda: LlmSettings(system_prompt="Be honest."))
    one = await talk.ask("One", settings=ConversationSettings(system="Be brief."))
    with override_settings(CHAT_SYSTEM_PROMPT=policy):
        again = await talk.redo(one.answer)
        assert again.prompt[0] == (ChatMessage("user", "One") if told is None else ChatMessage("system", told))
        expected = 400 if told is None else 200
        assert await change(browser, one.conversation, settings={"system": "x"}) == expected
        assert await change(browser, one.conversation, settings={"temperature": 0}) == 200
        assert ('name="system"' in (await browser.get("/")).content.decode()) == (told is not None)


async def test_settings_of_a_conversation_are_used_unless_the_frame_says_otherwise(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        settings = {"temperature": 0.5, "top_k": 3}
        await socket.ask("message.send", text="One", settings=settings, params={"top_k": 9})
        await controller.tickets[-1].running.wait()
        asked = controller.tickets[-1].request
        assert asked is not None
        params = asked.params
        assert (params.temperature, params.top_k) == (0.5, 9)
        reply = await socket.ask("message.send", text="One", settings={"system": "\0"})
        assert reply["code"] == "bad_frame"
