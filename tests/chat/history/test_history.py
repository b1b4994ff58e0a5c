"""The contract of a history, kept by the one in the database and by the one in a session."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.contrib.sessions.models import Session
from django.db import IntegrityError, InternalError, OperationalError
from django.utils import timezone

from chat.conf import get_settings
from chat.errors import BadParent, HistoryUnavailable, NotFound, NothingToContinue, TurnInProgress
from chat.history import database, temporary
from chat.history import history as history_module
from chat.history.database import acceptance, reading
from chat.history.history import History
from chat.history.ids import is_temporary, new_temporary_id
from chat.history.temporary import sessions
from chat.history.titles import title_of
from chat.history.values import (
    Accepted,
    AnswerStore,
    Caller,
    Changes,
    Continue,
    ConversationSettings,
    Redo,
    from_json,
)
from chat.models import Conversation, Generation, Message, Visitor
from llm.events import Finished, Timings, Usage
from llm.request import ChatMessage
from tests.chat.conftest import a_visitor, question
from tests.chat.memory import MemoryHistory

pytestmark = pytest.mark.django_db(transaction=True)

AnyTurnHistory = History | MemoryHistory


@pytest.fixture(params=["database", "session"])
def history(request: pytest.FixtureRequest, settings: Any) -> History:
    """A history whose new conversations are kept in the one or the other store."""
    settings.CHAT_TEMPORARY = "default" if request.param == "session" else "optional"
    return History()


@pytest.fixture(params=["database", "session", "memory"])
def turn_history(request: pytest.FixtureRequest, settings: Any) -> AnyTurnHistory:
    """For what turns are run by; the one in memory stands in for the others where turns are tested."""
    settings.CHAT_TEMPORARY = "default" if request.param == "session" else "optional"
    return MemoryHistory() if request.param == "memory" else History()


def another(history: AnyTurnHistory) -> AnyTurnHistory:
    """That of another process."""
    if isinstance(history, MemoryHistory):
        return MemoryHistory(history.tables)
    return History(process=uuid4())


def of_another(accepted: Accepted) -> AnswerStore:
    """The store that took a message, as another process has it."""
    if isinstance(accepted.store, MemoryHistory):
        return MemoryHistory(accepted.store.tables)
    return replace(accepted.store, process=uuid4())  # type: ignore[type-var]


async def state(history: AnyTurnHistory, visitor: Caller, accepted: Accepted) -> tuple[str, str]:
    """And the text."""
    stored = await history.answer(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    return stored.generation.state, stored.text


async def size(visitor: Caller, history: AnyTurnHistory) -> int:
    """How many messages there are of a visitor, wherever they are."""
    if isinstance(history, MemoryHistory):
        answers = [answer for answer in history.tables.answers.values() if answer.visitor == visitor.visitor]
        return len(answers) + len({answer.question for answer in answers})
    return await sync_to_async(_size)(visitor)


def _size(visitor: Caller) -> int:
    in_session = sum(len(chat.messages) for chat in sessions.load(visitor).chats)
    return in_session + Message.objects.filter(conversation__visitor=visitor.visitor).count()


USAGE = Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=2, left_out_turns=4)
STOP = Finished(reason="stop", usage=USAGE, timings=Timings(ttft=0.5))


async def said(
    history: AnyTurnHistory, visitor: Caller, text: str, answer: str, conversation: UUID | None = None
) -> UUID:
    """A question with its finished answer; the conversation it is in."""
    accepted = await history.accept(question(visitor, text, conversation=conversation))
    assert await accepted.store.finish(accepted.generation, answer, STOP)
    return accepted.conversation


async def test_accept_stores_question_answer_and_generation(history: History, visitor: Caller) -> None:
    accepted = await history.accept(question(visitor, "\n Hello there \nmore"))
    assert accepted.new
    assert accepted.prompt == (ChatMessage("user", "\n Hello there \nmore"),)
    branch = await history.branch(visitor, accepted.conversation)
    assert branch.conversation.title == "Hello there"
    assert branch.conversation.live == accepted.generation
    assert [(m.id, m.parent, m.role, m.text) for m in branch.messages] == [
        (accepted.message, None, "user", "\n Hello there \nmore"),
        (accepted.answer, accepted.message, "assistant", ""),
    ]
    generation = branch.messages[1].generation
    assert generation is not None
    assert generation.state == "queued"


async def test_finish_stores_text_and_end_once(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    accepted = await turn_history.accept(question(visitor))
    await accepted.store.started(accepted.generation)
    assert await accepted.store.finish(accepted.generation, "Hi", STOP)
    assert not await accepted.store.finish(accepted.generation, "again", Finished(reason="error"))
    await accepted.store.started(accepted.generation)  # too late, changes nothing
    stored = await turn_history.answer(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    assert stored.text == "Hi"
    assert stored.generation.finished == STOP
    assert await turn_history.answer(visitor, accepted.conversation, None) is None


async def test_checkpoint_stores_the_text_of_what_runs_here_and_names_the_rest(
    turn_history: AnyTurnHistory, visitor: Caller
) -> None:
    running, ended = await turn_history.accept(question(visitor)), await turn_history.accept(question(visitor))
    await ended.store.finish(ended.generation, "whole", STOP)
    other = await another(turn_history).accept(question(visitor))
    texts = {each.generation: "so far" for each in (running, ended, other)}
    assert await running.store.checkpoint(texts) == {ended.generation, other.generation}
    stored = [
        await turn_history.answer(visitor, each.conversation, each.generation) for each in (running, ended, other)
    ]
    assert [(each.generation.state, each.text) for each in stored if each] == [
        ("running", "so far"),
        ("stop", "whole"),
        ("queued", ""),
    ]


@pytest.mark.parametrize(
    "error", [OperationalError("the connection is closed"), InternalError("cannot execute UPDATE in a read-only one")]
)
async def test_a_database_that_is_away_is_named_so(
    history: History, visitor: Caller, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(history_module, "_accepted", away)
    store, conversation = (
        (temporary, new_temporary_id()) if get_settings().temporary == "default" else (database, uuid4())
    )
    for name in ("page", "branch", "answer"):
        monkeypatch.setattr(store, name, away)
    for attempt in (
        history.accepted(visitor, "f"),
        history.conversations(visitor),
        history.branch(visitor, conversation),
        history.answer(visitor, conversation, None),
    ):
        with pytest.raises(HistoryUnavailable):
            await attempt


async def test_an_end_that_was_written_may_be_written_again(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    """As one does who did not learn whether it was; another end is another's."""
    accepted = await turn_history.accept(question(visitor))
    assert await accepted.store.finish(accepted.generation, "Hi", STOP)
    assert await accepted.store.finish(accepted.generation, "Hi", STOP)
    assert not await accepted.store.finish(accepted.generation, "Hi", Finished(reason="length"))
    assert not await of_another(accepted).finish(accepted.generation, "Hi", STOP)
    assert await state(turn_history, visitor, accepted) == ("stop", "Hi")


async def test_finish_of_another_process_writes_nothing(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    accepted = await turn_history.accept(question(visitor))
    assert not await of_another(accepted).finish(accepted.generation, "mine", STOP)
    stored = await turn_history.answer(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    assert stored.text == ""
    assert stored.generation.finished is None


async def test_recover_ends_the_turns_of_others_only(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    dead = another(turn_history)
    lost = await dead.accept(question(visitor))
    mine = await turn_history.accept(question(visitor))
    assert await turn_history.recover() == 1
    states = [(await state(turn_history, visitor, each))[0] for each in (lost, mine)]
    assert states == ["interrupted", "queued"]
    assert not await lost.store.finish(lost.generation, "too late", STOP)
    assert await turn_history.recover() == 0


async def test_accept_of_a_repeated_frame_leads_to_the_first_rows(
    turn_history: AnyTurnHistory, visitor: Caller
) -> None:
    first = await turn_history.accept(question(visitor, request_id="f"))
    again = await turn_history.accept(question(visitor, request_id="f"))
    found = await turn_history.accepted(visitor, "f")
    assert again == found
    assert not again.new
    assert (again.conversation, again.answer, again.generation) == (first.conversation, first.answer, first.generation)
    assert await size(visitor, turn_history) == 2
    assert await turn_history.accepted(a_visitor(), "f") is None


async def test_accept_of_the_same_frame_at_once_stores_one(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    results = await asyncio.gather(*(turn_history.accept(question(visitor, request_id="f")) for _ in range(5)))
    assert sum(each.new for each in results) == 1
    assert len({each.generation for each in results}) == 1
    assert await size(visitor, turn_history) == 2


async def test_accept_refuses_a_second_live_answer(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    first = await turn_history.accept(question(visitor))
    with pytest.raises(TurnInProgress):
        await turn_history.accept(question(visitor, conversation=first.conversation))
    with pytest.raises(TurnInProgress):
        await turn_history.accept(Redo(caller=visitor, request_id="r", answer=first.answer))
    assert await size(visitor, turn_history) == 2
    await first.store.finish(first.generation, "x", STOP)
    await turn_history.accept(question(visitor, conversation=first.conversation))


async def test_a_conversation_goes_on_below_what_is_shown(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    conversation = await said(turn_history, visitor, "one", "1")
    await said(turn_history, visitor, "two", "2", conversation)
    accepted = await turn_history.accept(question(visitor, "three", conversation=conversation))
    assert [message.content for message in accepted.prompt] == ["one", "1", "two", "2", "three"]


async def test_a_parent_makes_a_branch(history: History, visitor: Caller) -> None:
    conversation = await said(history, visitor, "one", "1")
    first = (await history.branch(visitor, conversation)).messages[-1].id
    await said(history, visitor, "two", "2", conversation)
    below = await history.accept(question(visitor, "other", conversation=conversation, branches=True, parent=first))
    assert [message.content for message in below.prompt] == ["one", "1", "other"]
    await below.store.finish(below.generation, "x", STOP)
    root = await history.accept(question(visitor, "new root", conversation=conversation, branches=True))
    assert [message.content for message in root.prompt] == ["new root"]
    assert [m.text for m in (await history.branch(visitor, conversation)).messages] == ["new root", ""]


async def test_a_parent_must_be_an_answer_of_the_conversation(history: History, visitor: Caller) -> None:
    conversation = await said(history, visitor, "one", "1")
    elsewhere = await said(history, visitor, "other", "2")
    asked = (await history.branch(visitor, conversation)).messages[0].id
    foreign = (await history.branch(visitor, elsewhere)).messages[1].id
    with pytest.raises(BadParent):
        await history.accept(question(visitor, conversation=conversation, branches=True, parent=asked))
    with pytest.raises(NotFound):
        await history.accept(question(visitor, conversation=conversation, branches=True, parent=foreign))
    with pytest.raises(NotFound):
        await history.accept(question(visitor, branches=True, parent=foreign))
    assert len((await history.conversations(visitor)).conversations) == 2


async def test_redo_puts_a_further_answer_beside_the_first(history: History, visitor: Caller) -> None:
    conversation = await said(history, visitor, "one", "1")
    asked, answer = (await history.branch(visitor, conversation)).messages
    redone = await history.accept(Redo(caller=visitor, request_id="r", answer=answer.id))
    assert redone.message == asked.id
    assert redone.prompt == (ChatMessage("user", "one"),)
    shown = (await history.branch(visitor, conversation)).messages
    assert [message.id for message in shown] == [asked.id, redone.answer]


@pytest.mark.parametrize("reason", ["length", "cancelled", "timeout", "error", "interrupted"])
async def test_a_cut_off_answer_goes_on_in_its_place(
    turn_history: AnyTurnHistory, visitor: Caller, reason: str
) -> None:
    first = await turn_history.accept(question(visitor, "one"))
    await first.store.finish(first.generation, "1", Finished(reason=reason))  # type: ignore[arg-type]
    more = await turn_history.accept(Continue(caller=visitor, request_id="c", answer=first.answer))
    assert (more.conversation, more.message, more.answer) == (first.conversation, first.message, first.answer)
    assert more.text == "1"
    assert more.prompt == (ChatMessage("user", "one"), ChatMessage("assistant", "1"))
    assert await more.store.checkpoint({more.generation: "12"}) == set()
    with pytest.raises(TurnInProgress):
        await turn_history.accept(Continue(caller=visitor, request_id="d", answer=first.answer))
    await more.store.finish(more.generation, "123", Finished(reason="stop"))
    assert await state(turn_history, visitor, more) == ("stop", "123")
    again = await turn_history.accept(Continue(caller=visitor, request_id="c", answer=first.answer))
    assert (again.generation, again.new) == (more.generation, False)


async def test_an_answer_that_is_complete_or_empty_does_not_go_on(
    turn_history: AnyTurnHistory, visitor: Caller
) -> None:
    for text, reason in (("complete", "stop"), ("", "error")):
        accepted = await turn_history.accept(question(visitor))
        await accepted.store.finish(accepted.generation, text, Finished(reason=reason))  # type: ignore[arg-type]
        with pytest.raises(NothingToContinue):
            await turn_history.accept(Continue(caller=visitor, request_id="c", answer=accepted.answer))
        with pytest.raises(NotFound):
            await turn_history.accept(Continue(caller=a_visitor(), request_id="c", answer=accepted.answer))
        with pytest.raises(NotFound):
            await turn_history.accept(Continue(caller=visitor, request_id="c", answer=accepted.message))


async def test_the_prompt_leaves_out_questions_without_an_answer(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    conversation = await said(turn_history, visitor, "unanswered", "")
    accepted = await turn_history.accept(question(visitor, "again", conversation=conversation))
    assert accepted.prompt == (ChatMessage("user", "again"),)


async def test_what_is_anothers_is_not_found(history: History, visitor: Caller) -> None:
    accepted = await history.accept(question(visitor))
    stranger = a_visitor()
    assert not await history.owns(stranger, accepted.generation)
    assert await history.owns(visitor, accepted.generation)
    await accepted.store.finish(accepted.generation, "secret", STOP)
    for attempt in (
        history.branch(stranger, accepted.conversation),
        history.answer(stranger, accepted.conversation, accepted.generation),
        history.accept(question(stranger, conversation=accepted.conversation)),
        history.accept(Redo(caller=stranger, request_id="r", answer=accepted.answer)),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await history.conversations(stranger)).conversations == []
    assert await size(visitor, history) == 2
    assert not await Visitor.objects.filter(pk=stranger.visitor).aexists()


async def test_a_deleted_conversation_is_out_of_sight(history: History, visitor: Caller) -> None:
    accepted = await history.accept(question(visitor))
    await accepted.store.finish(accepted.generation, "x", Finished(reason="length"))
    with pytest.raises(NotFound):
        await history.delete(a_visitor(), accepted.conversation)
    assert await history.holds(visitor, accepted.conversation)
    assert await history.delete(visitor, accepted.conversation) is None
    assert not await history.holds(visitor, accepted.conversation)
    assert not await history.owns(visitor, accepted.generation)
    assert (await history.conversations(visitor)).conversations == []
    for attempt in (
        history.delete(visitor, accepted.conversation),
        history.branch(visitor, accepted.conversation),
        history.answer(visitor, accepted.conversation, accepted.generation),
        history.accept(question(visitor, conversation=accepted.conversation)),
        history.accept(Redo(caller=visitor, request_id="r", answer=accepted.answer)),
        history.accept(Continue(caller=visitor, request_id="c", answer=accepted.answer)),
        history.restore(a_visitor(), accepted.conversation),
    ):
        with pytest.raises(NotFound):
            await attempt


async def test_what_lives_in_a_deleted_conversation_is_named(history: History, visitor: Caller) -> None:
    """A turn that was accepted since anyone looked is no secret to who deletes."""
    accepted = await history.accept(question(visitor))
    assert await history.delete(visitor, accepted.conversation) == accepted.generation


async def test_a_conversation_deleted_while_a_message_is_accepted_refuses_it(
    visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = History()
    conversation = await said(history, visitor, "One", "An answer")
    create = Message.objects.create

    def deleting(**fields: Any) -> Message:
        Conversation.objects.update(deleted=timezone.now())
        return create(**fields)

    monkeypatch.setattr(
        acceptance,
        "_answer_to",
        lambda question: deleting(conversation=question.conversation, role=Message.Role.ASSISTANT, parent=question),
    )
    with pytest.raises(NotFound):
        await history.accept(question(visitor, "Two", conversation=conversation))
    assert await Message.objects.acount() == 2
    assert await Generation.objects.acount() == 1


async def test_a_further_answer_and_a_continuation_have_the_settings_of_now(history: History, visitor: Caller) -> None:
    first = await history.accept(question(visitor, settings=ConversationSettings(system="Be brief.", temperature=0.5)))
    await first.store.finish(first.generation, "Cut off", Finished(reason="length"))
    now = ConversationSettings(system="Be kind.", top_k=3)
    await history.change(visitor, first.conversation, Changes(settings=now))
    again = await history.accept(Redo(caller=visitor, request_id="r", answer=first.answer))
    await again.store.finish(again.generation, "Another", Finished(reason="stop"))
    further = await history.accept(Continue(caller=visitor, request_id="c", answer=first.answer))
    for accepted in (again, further):
        assert accepted.settings == now
        assert accepted.prompt[0] == ChatMessage("system", "Be kind.")


async def test_every_setting_comes_back_as_it_was_given(history: History, visitor: Caller) -> None:
    """JSON has texts as the keys of objects, and those of a bias are numbers."""
    given = ConversationSettings(
        temperature=1, repetition_penalty=1.25, logit_bias={0: 100, 2**31 - 1: -0.5}, seed=2**63 - 1, stop=("a", "é")
    )
    first = await history.accept(question(visitor, settings=given))
    assert await first.store.checkpoint({first.generation: "so"}) == set()
    assert await first.store.finish(first.generation, "so far", STOP)
    assert [each.id for each in (await history.conversations(visitor)).conversations] == [first.conversation]
    assert (await history.branch(visitor, first.conversation)).settings == given
    await history.change(visitor, first.conversation, Changes(settings=given))
    again = await history.accept(question(visitor, conversation=first.conversation))
    assert (first.settings, again.settings) == (given, given)


async def test_a_search_takes_every_character_as_it_is(visitor: Caller) -> None:
    history = History()
    titles = ("50% of it", "50 of it", "under_score", "underXscore", "back\\slash")
    for title in titles:
        await said(history, visitor, title, "An answer")
    for query, found in (("%", 0), ("0% o", 0), ("r_s", 2), ("_", 2), ("k\\s", 4), ("\\", 4)):
        page = await history.conversations(visitor, None, query)
        assert [each.title for each in page.conversations] == [titles[found]], query


async def test_a_deleted_conversation_comes_back_a_temporary_one_does_not(history: History, visitor: Caller) -> None:
    conversation = await said(history, visitor, "one", "1")
    await history.delete(visitor, conversation)
    if is_temporary(conversation):
        with pytest.raises(NotFound):
            await history.restore(visitor, conversation)
        assert not await Session.objects.aexists()
    else:
        await history.restore(visitor, conversation)
        await history.restore(visitor, conversation)
        await said(history, visitor, "two", "2", conversation)
        assert len((await history.branch(visitor, conversation)).messages) == 4


async def test_an_answer_is_found_in_its_own_conversation_only(turn_history: AnyTurnHistory, visitor: Caller) -> None:
    one, two = [await turn_history.accept(question(visitor)) for _ in range(2)]
    with pytest.raises(NotFound):
        await turn_history.answer(visitor, one.conversation, two.generation)


async def test_conversations_come_latest_first_page_by_page(visitor: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History()
    monkeypatch.setattr(reading, "PAGE_SIZE", 2)
    made = [await said(history, visitor, str(number), "x") for number in range(5)]
    await said(history, visitor, "latest", "x", made[0])
    found: list[UUID] = []
    after: str | None = None
    for _ in range(3):
        page = await history.conversations(visitor, after)
        found += [item.id for item in page.conversations]
        after = page.next
    assert after is None
    assert found == [made[0], *made[:0:-1]]
    with pytest.raises(NotFound):
        await history.conversations(visitor, "nonsense")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Hello", "Hello"),
        ("  \n\t\n  second line \nthird", "second line"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("あ" * 200, "あ" * 59 + "…"),
        ("x" * 58 + "e\u0301" * 9, "x" * 58 + "…"),
        ("x" * 56 + "👩\u200d🚀" * 9, "x" * 56 + "👩\u200d🚀…"),
        ("x" * 57 + "👩\u200d🚀" * 9, "x" * 57 + "…"),
        ("x" * 58 + "👍🏽" * 9, "x" * 58 + "…"),
        ("\u0301" * 61, "\u0301" * 59 + "…"),
    ],
)
def test_title_is_the_first_line_that_says_something(text: str, title: str) -> None:
    assert title_of(text) == title


@pytest.mark.parametrize("stored", [{"temperature": 99.0, "system": "Be brief.", "gone": 1}, ["no", "settings"]])
def test_settings_that_are_not_allowed_any_more_are_as_if_not_set(visitor: Caller, stored: Any) -> None:
    owner = Visitor.objects.create(pk=visitor.visitor)
    conversation = Conversation.objects.create(visitor=owner, title="x", updated="2026-01-01T00:00Z", settings=stored)
    system = stored["system"] if isinstance(stored, dict) else ""
    assert from_json(conversation.settings) == ConversationSettings(system=system)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_the_database_itself_holds_both_keys(visitor: Caller, state: str) -> None:
    owner = Visitor.objects.create(pk=visitor.visitor)
    conversation = Conversation.objects.create(visitor=owner, title="x", updated="2026-01-01T00:00Z")
    answer = conversation.messages.create(role="assistant")
    row = {"visitor": owner, "conversation": conversation, "answer": answer, "process": uuid4()}
    Generation.objects.create(**row, request_id="f", state=state)
    with pytest.raises(IntegrityError, match="request"):
        Generation.objects.create(**row, request_id="f", state="stop")
    with pytest.raises(IntegrityError, match="conversation"):
        Generation.objects.create(**row, request_id="g", state="queued")
    Generation.objects.create(**row, request_id=None, state="stop")
    Generation.objects.create(**row, request_id=None, state="stop")


async def test_many_writers_at_once_are_never_refused_by_the_database(history: History) -> None:
    visitors = [a_visitor() for _ in range(40)]
    accepted = await asyncio.gather(*(history.accept(question(visitor)) for visitor in visitors))
    ended = await asyncio.gather(*(each.store.finish(each.generation, "x", STOP) for each in accepted))
    assert all(ended)
    for visitor, each in zip(visitors, accepted, strict=True):
        assert (await history.branch(visitor, each.conversation)).messages[1].text == "x"
