"""Temporary chats: in a session and in no table, for their own session alone, for so long and no longer."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.core.management import call_command
from django.test import AsyncClient, Client, override_settings
from django.utils import timezone

from chat.errors import NotFound, NotOffered
from chat.history.history import History
from chat.history.ids import is_temporary
from chat.history.temporary import lifetime, sessions
from chat.history.temporary.chats import LIMIT
from chat.history.values import Caller, Continue, Redo
from chat.models import Conversation, Generation, Message, Visitor
from chat.turns.registry import Turns
from llm.events import Finished
from tests.chat.conftest import Connect, a_visitor, again, question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)

STOP = Finished(reason="stop")
SECRET = "Nobody is to know this"


@pytest.fixture
def history() -> History:
    return History()


async def said(history: History, visitor: Caller, text: str, answer: str, conversation: UUID | None = None) -> UUID:
    accepted = await history.accept(question(visitor, text, conversation=conversation, temporary=True))
    assert await accepted.store.finish(accepted.generation, answer, STOP)
    return accepted.conversation


def dumped() -> str:
    """All tables but that of the sessions, as text."""
    out = StringIO()
    call_command("dumpdata", "--exclude", "sessions", stdout=out)
    return out.getvalue()


async def test_its_text_is_in_no_table_and_its_figures_are(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await socket.ask("message.send", text=SECRET, temporary=True)
        assert accepted["temporary"]
        await controller.tickets[0].say(SECRET.upper())
        await controller.tickets[0].tell(STOP)
        await socket.until("generation.finished", reason="stop")
        kept = await socket.ask("message.send", text="Anyone may know this")
        assert not kept["temporary"]
    everything = await sync_to_async(dumped)()
    assert "Anyone may know this" in everything
    assert SECRET.lower() not in everything.lower()
    figures = await Generation.objects.aget(pk=accepted["generation"])
    assert (figures.state, figures.conversation_id, figures.answer_id) == ("stop", None, None)
    assert figures.ttft is not None
    stored = await sync_to_async(SessionStore(visitor.temporary).load)()
    assert SECRET.upper() in str(stored)


async def test_it_is_read_and_listed_like_any_other(history: History, visitor: Caller) -> None:
    kept = (await history.accept(question(visitor, "kept"))).conversation
    temporary = await said(history, visitor, "one", "1")
    await said(history, visitor, "two", "2", temporary)
    listed = (await history.conversations(visitor)).conversations
    assert [(each.id, each.temporary) for each in listed] == [(temporary, True), (kept, False)]
    branch = await history.branch(visitor, temporary)
    assert [each.text for each in branch.messages] == ["one", "1", "two", "2"]
    assert branch.conversation.temporary
    assert branch.messages[-1].generation is not None
    assert await history.holds(visitor, temporary)
    assert await history.holds(visitor, kept)


async def test_what_does_not_belong_to_the_session_is_not_found(
    history: History, connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    """Not even by another browser of the same account."""
    async with connect(visitor) as socket, connect(a_visitor()) as stranger:
        accepted = await socket.ask("message.send", text=SECRET, temporary=True)
        async with connect(Caller(visitor.visitor, uuid4().hex)) as browser:
            await browser.until("status")
            for other in (stranger, browser):
                for type, fields in (
                    ("message.send", {"text": "x", "conversation": accepted["conversation"]}),
                    ("message.regenerate", {"message": accepted["answer"]}),
                    ("message.continue", {"message": accepted["answer"]}),
                    ("generation.stop", {"generation": accepted["generation"]}),
                    ("conversation.open", {"conversation": accepted["conversation"]}),
                    (
                        "conversation.open",
                        {"conversation": accepted["conversation"], "generation": accepted["generation"]},
                    ),
                ):
                    assert (await other.ask(type, **fields))["code"] == "not_found", (type, fields)
        assert not controller.tickets[0].cancelled
    for caller in (a_visitor(), Caller(visitor.visitor, uuid4().hex), Caller(visitor.visitor)):
        assert not await history.holds(caller, UUID(accepted["conversation"]))
        assert (await history.conversations(caller)).conversations == []


async def test_two_tabs_in_one_chat(connect: Connect, controller: ScriptedController, visitor: Caller) -> None:
    async with connect(visitor) as one, connect(visitor) as two:
        await two.until("hello")
        accepted = await one.ask("message.send", text="Hello", temporary=True)
        chat = {"conversation": accepted["conversation"]}
        await two.until("conversation.changed", **chat)
        assert (await two.ask("message.send", text="At once", **chat))["code"] == "turn_in_progress"
        assert (await two.ask("conversation.open", **chat))["type"] == "ok"
        await two.until("generation.snapshot", text="")
        await controller.tickets[0].say("Hi")
        assert (await two.until("generation.delta"))["text"] == "Hi"
        await controller.tickets[0].tell(STOP)
        for socket in (one, two):
            await socket.until("generation.finished", reason="stop")
        further = await two.ask("message.send", text="After it", **chat)
        await controller.tickets[2].running.wait()
        assert [each.content for each in controller.tickets[2].request.messages] == ["Hello", "Hi", "After it"]  # type: ignore[union-attr]
        assert further["temporary"]


async def test_a_page_view_leaves_no_row_and_a_message_leaves_the_visitors_session_alone(
    turns: Turns, connect: Connect
) -> None:
    browser = AsyncClient()
    again(browser)
    await browser.get("/")
    session = await browser.asession()
    assert await Session.objects.acount() == 1
    visitor = Caller(UUID(await session.aget("visitor")), await session.aget("temporary"))
    async with connect(visitor) as socket:
        before = await Session.objects.acount()  # the socket of the test has one more, as if of another browser
        await session.aset("theme", "dark")  # HTTP writes to the visitor's session while the socket is open
        await session.asave()
        await socket.ask("message.send", text=SECRET, temporary=True)
        assert await Session.objects.acount() == before + 1
    reread = await sync_to_async(SessionStore(session.session_key).load)()
    assert reread["theme"] == "dark"
    assert set(reread) == {"visitor", "visited", "temporary", "theme"}
    assert list(await sync_to_async(SessionStore(visitor.temporary).load)()) == [sessions.CONTENT]


@pytest.mark.parametrize("engine", ["db", "cached_db"])
def test_a_chat_ends_with_its_session(client: Client, engine: str) -> None:
    history = History()
    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        client.force_login(User.objects.create_user("ada", password="x"))
        client.get("/")
        visitor = Caller(UUID(client.session["visitor"]), client.session["temporary"])
        conversation = async_to_sync(said)(history, visitor, SECRET, "I see")
        assert client.get(f"/c/{conversation}/").status_code == 200
        assert SECRET in client.get(f"/api/conversations/{conversation}/").content.decode()
        client.logout()
        again(client)
        client.get("/")
        assert client.session["temporary"] != visitor.temporary
        assert client.get(f"/c/{conversation}/").status_code == 404
    assert not Session.objects.filter(pk=visitor.temporary).exists()
    assert Generation.objects.get().state == "stop"


async def test_signing_out_ends_an_answer_that_is_being_written(
    turns: Turns, connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        await socket.ask("message.send", text=SECRET, temporary=True)
        await sync_to_async(lifetime.forget)(visitor.temporary)
        await controller.tickets[0].say("To nobody")
        await socket.until("generation.finished", reason="interrupted")
    assert controller.tickets[0].cancelled
    assert (await Generation.objects.aget()).state == "interrupted"
    assert not await Session.objects.filter(pk=visitor.temporary).aexists()


async def test_a_session_that_vanished_takes_the_text_and_leaves_the_figures(history: History, visitor: Caller) -> None:
    accepted = await history.accept(question(visitor, SECRET, request_id="f", temporary=True))
    await sync_to_async(lifetime.forget)(visitor.temporary)
    assert await accepted.store.checkpoint({accepted.generation: "so far"}) == {accepted.generation}
    assert await accepted.store.finish(accepted.generation, "to the end", Finished(reason="cancelled"))
    assert (await Generation.objects.aget()).state == "cancelled"
    assert not await Session.objects.filter(pk=visitor.temporary).aexists()
    for attempt in (
        history.accepted(visitor, "f"),
        history.branch(visitor, accepted.conversation),
        history.answer(visitor, accepted.conversation, accepted.generation),
        history.accept(question(visitor, conversation=accepted.conversation)),
        history.accept(question(visitor, request_id="f", temporary=True)),
        history.accept(Redo(caller=visitor, request_id="r", answer=accepted.answer)),
        history.accept(Continue(caller=visitor, request_id="c", answer=accepted.answer)),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert not await history.owns(visitor, accepted.generation)


@pytest.mark.parametrize("content", [{}, {sessions.CONTENT: {"chats": [{"title": 1}]}}])
async def test_a_session_that_cannot_be_read_is_as_if_ended(
    history: History, visitor: Caller, content: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    accepted = await history.accept(question(visitor, SECRET, temporary=True))
    row = await Session.objects.aget(pk=visitor.temporary)
    row.session_data = SessionStore().encode(content)
    await row.asave()
    assert (await history.conversations(visitor)).conversations == []
    with pytest.raises(NotFound):
        await history.branch(visitor, accepted.conversation)
    assert await accepted.store.checkpoint({accepted.generation: "so far"}) == {accepted.generation}
    assert await accepted.store.finish(accepted.generation, "to the end", STOP)
    assert "cannot be read" in caplog.text
    new = await said(history, visitor, "new", "x")
    assert [each.id for each in (await history.conversations(visitor)).conversations] == [new]


async def test_it_is_gone_twelve_hours_after_its_last_turn(history: History, visitor: Caller) -> None:
    old = await said(history, visitor, "old", "x")
    row = await Session.objects.aget(pk=visitor.temporary)
    assert timedelta(hours=11.9) < row.expire_date - timezone.now() <= timedelta(hours=12)
    row.expire_date = timezone.now() + timedelta(hours=1)
    await row.asave()
    await said(history, visitor, "again", "x", old)  # a turn gives it twelve hours more
    await row.arefresh_from_db()
    assert row.expire_date > timezone.now() + timedelta(hours=11)
    row.expire_date = timezone.now() - timedelta(seconds=1)
    await row.asave()
    assert not await history.holds(visitor, old)
    with pytest.raises(NotFound):
        await history.accept(question(visitor, conversation=old))
    new = await said(history, visitor, "new", "x")
    assert [each.id for each in (await history.conversations(visitor)).conversations] == [new]


async def test_a_killed_process_leaves_it_interrupted_with_its_text(history: History, visitor: Caller) -> None:
    dead = History(process=(process := uuid4()))
    accepted = await dead.accept(question(visitor, SECRET, temporary=True))
    assert await accepted.store.checkpoint({accepted.generation: "so far"}) == set()
    assert (await Generation.objects.aget()).process == process
    assert await history.recover() == 1
    (_, answer) = (await history.branch(visitor, accepted.conversation)).messages
    assert answer.text == "so far"
    assert answer.generation is not None
    assert answer.generation.state == "interrupted"
    assert not await accepted.store.finish(accepted.generation, "too late", STOP)
    more = await history.accept(Continue(caller=visitor, request_id="c", answer=accepted.answer))
    assert more.text == "so far"


@pytest.mark.parametrize(
    ("mode", "found"),  # what becomes of `temporary` absent, true, false
    [
        ("off", (False, None, False)),
        ("optional", (False, True, False)),
        ("default", (True, True, False)),
        ("only", (True, True, None)),
    ],
)
async def test_what_a_site_offers(history: History, visitor: Caller, mode: str, found: tuple[bool | None, ...]) -> None:
    async def kind(temporary: bool | None) -> bool | None:
        try:
            return is_temporary((await history.accept(question(visitor, temporary=temporary))).conversation)
        except NotOffered:
            return None

    with override_settings(CHAT_TEMPORARY=mode):
        assert tuple([await kind(temporary) for temporary in (None, True, False)]) == found
    assert await Generation.objects.acount() == sum(each is not None for each in found)


@pytest.mark.parametrize(("mode", "temporary"), [("off", True), ("only", False)])
async def test_what_a_site_no_longer_offers_can_be_read_and_not_gone_on_with(
    history: History, visitor: Caller, mode: str, temporary: bool
) -> None:
    accepted = await history.accept(question(visitor, temporary=temporary))
    await accepted.store.finish(accepted.generation, "cut", Finished(reason="length"))
    with override_settings(CHAT_TEMPORARY=mode):
        assert len((await history.branch(visitor, accepted.conversation)).messages) == 2
        for asked in (
            question(visitor, conversation=accepted.conversation),
            Redo(caller=visitor, request_id="r", answer=accepted.answer),
            Continue(caller=visitor, request_id="c", answer=accepted.answer),
        ):
            with pytest.raises(NotOffered):
                await history.accept(asked)


@pytest.mark.parametrize("temporary", [True, False])
async def test_a_conversation_does_not_change_its_kind(history: History, visitor: Caller, temporary: bool) -> None:
    accepted = await history.accept(question(visitor, temporary=temporary))
    await accepted.store.finish(accepted.generation, "x", STOP)
    with pytest.raises(NotOffered):
        await history.accept(question(visitor, conversation=accepted.conversation, temporary=not temporary))


async def test_without_a_key_there_is_no_temporary_chat(history: History, visitor: Caller) -> None:
    with pytest.raises(NotFound):
        await history.accept(question(Caller(visitor.visitor), temporary=True))
    assert not await Session.objects.aexists()
    assert not await Visitor.objects.aexists()


async def test_beyond_the_bound_the_oldest_turns_go(history: History, visitor: Caller) -> None:
    text = "é" * (LIMIT // 16)  # an eighth of it
    first = await said(history, visitor, "first", text)
    second = await said(history, visitor, "second", text)
    for number in range(5):
        await said(history, visitor, str(number), text, second)
    assert [each.id for each in (await history.conversations(visitor)).conversations] == [second, first]
    await said(history, visitor, "one too many", text, second)
    assert [each.id for each in (await history.conversations(visitor)).conversations] == [second]
    await said(history, visitor, "and another", text, second)
    branch = await history.branch(visitor, second)
    assert [each.text for each in branch.messages[::2]] == ["0", "1", "2", "3", "4", "one too many", "and another"]
    assert branch.messages[0].parent is None
    chats = await sync_to_async(sessions.load)(visitor)
    assert chats.size <= LIMIT


async def test_an_answer_longer_than_the_bound_is_kept_up_to_there(history: History, visitor: Caller) -> None:
    before = await said(history, visitor, "before", "x")
    accepted = await history.accept(question(visitor, "Go on for ever", temporary=True))
    endless = "é" * LIMIT
    assert await accepted.store.checkpoint({accepted.generation: endless}) == set()
    assert await accepted.store.finish(accepted.generation, endless, Finished(reason="length"))
    chats = await sync_to_async(sessions.load)(visitor)
    assert LIMIT - 1 <= chats.size <= LIMIT
    _, answer = (await history.branch(visitor, accepted.conversation)).messages
    assert endless.startswith(answer.text)
    assert not await history.holds(visitor, before)


async def test_what_is_being_written_is_not_dropped(history: History, visitor: Caller) -> None:
    running = await history.accept(question(visitor, "running", temporary=True))
    await said(history, visitor, "long", "x" * LIMIT)
    assert await running.store.checkpoint({running.generation: "still here"}) == set()
    stored = await history.answer(visitor, running.conversation, running.generation)
    assert stored is not None
    assert stored.text == "still here"
    assert (await sync_to_async(sessions.load)(visitor)).size <= LIMIT


def test_the_operator_sees_figures_and_no_text(client: Client, history: History, visitor: Caller) -> None:
    async_to_sync(said)(history, visitor, SECRET, SECRET)
    client.force_login(User.objects.create_superuser("root", password="x"))
    generation = Generation.objects.get()
    for path in (
        "/admin/chat/generation/",
        f"/admin/chat/generation/{generation.pk}/change/",
        "/admin/chat/conversation/",
        "/admin/chat/message/",
    ):
        answer = client.get(path)
        assert answer.status_code == 200
        assert SECRET not in answer.content.decode()
    assert "temporary" in client.get("/admin/chat/generation/").content.decode()
    assert not Conversation.objects.exists()
    assert not Message.objects.exists()
