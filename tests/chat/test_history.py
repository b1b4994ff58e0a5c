"""The contract of a history, kept by the one in the database."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, OperationalError

from chat import branches
from chat import history as history_module
from chat.history import DatabaseHistory, title_of
from chat.models import Conversation, Generation, Message, Visitor
from chat.records import BadParent, Continue, HistoryUnavailable, NotFound, NothingToContinue, Redo, TurnInProgress
from llm.events import Finished, Timings, Usage
from llm.request import ChatMessage
from tests.chat.conftest import question

pytestmark = pytest.mark.django_db(transaction=True)

STOP = Finished(reason="stop", usage=Usage(prompt_tokens=3, completion_tokens=2), timings=Timings(ttft=0.5))


async def said(
    history: DatabaseHistory, visitor: UUID, text: str, answer: str, conversation: UUID | None = None
) -> UUID:
    """A question with its finished answer; the conversation it is in."""
    accepted = await history.accept(question(visitor, text, conversation=conversation))
    assert await history.finish(accepted.generation, answer, STOP)
    return accepted.conversation


async def test_accept_stores_question_answer_and_generation(history: DatabaseHistory, visitor: UUID) -> None:
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


async def test_finish_stores_text_and_end_once(history: DatabaseHistory, visitor: UUID) -> None:
    accepted = await history.accept(question(visitor))
    await history.started(accepted.generation)
    assert await history.finish(accepted.generation, "Hi", STOP)
    assert not await history.finish(accepted.generation, "again", Finished(reason="error"))
    await history.started(accepted.generation)  # too late, changes nothing
    stored = await history.answer(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    assert stored.text == "Hi"
    assert stored.generation.finished == STOP
    assert await history.answer(visitor, accepted.conversation, None) is None


async def test_checkpoint_stores_the_text_of_what_runs_here_and_names_the_rest(
    history: DatabaseHistory, visitor: UUID
) -> None:
    running, ended = await history.accept(question(visitor)), await history.accept(question(visitor))
    await history.finish(ended.generation, "whole", STOP)
    other = await DatabaseHistory(owner=uuid4()).accept(question(visitor))
    texts = {each.generation: "so far" for each in (running, ended, other)}
    assert await history.checkpoint(texts) == {ended.generation, other.generation}
    stored = [await history.answer(visitor, each.conversation, each.generation) for each in (running, ended, other)]
    assert [(each.generation.state, each.text) for each in stored if each] == [
        ("running", "so far"),
        ("stop", "whole"),
        ("queued", ""),
    ]


async def test_a_database_that_is_away_is_named_so(
    history: DatabaseHistory, visitor: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise OperationalError("the connection is closed")

    for module, name in ((history_module, "_accepted"), (branches, "page"), (branches, "shown"), (branches, "answer")):
        monkeypatch.setattr(module, name, away)
    for attempt in (
        history.accepted(visitor, "f"),
        history.conversations(visitor),
        history.branch(visitor, uuid4()),
        history.answer(visitor, uuid4(), None),
    ):
        with pytest.raises(HistoryUnavailable):
            await attempt


async def test_finish_of_another_process_writes_nothing(history: DatabaseHistory, visitor: UUID) -> None:
    accepted = await history.accept(question(visitor))
    assert not await DatabaseHistory(owner=uuid4()).finish(accepted.generation, "mine", STOP)
    stored = await history.answer(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    assert stored.text == ""
    assert stored.generation.finished is None


async def test_recover_ends_the_turns_of_others_only(history: DatabaseHistory, visitor: UUID) -> None:
    dead = DatabaseHistory(owner=uuid4())
    lost = await dead.accept(question(visitor))
    mine = await history.accept(question(visitor))
    assert await history.recover() == 1
    states = {row.pk: row.state async for row in Generation.objects.all()}
    assert states == {lost.generation: "interrupted", mine.generation: "queued"}
    assert not await dead.finish(lost.generation, "too late", STOP)
    assert await history.recover() == 0


async def test_accept_of_a_repeated_frame_leads_to_the_first_rows(history: DatabaseHistory, visitor: UUID) -> None:
    first = await history.accept(question(visitor, frame="f"))
    again = await history.accept(question(visitor, frame="f"))
    found = await history.accepted(visitor, "f")
    assert again == found
    assert not again.new
    assert (again.conversation, again.answer, again.generation) == (first.conversation, first.answer, first.generation)
    assert await Message.objects.acount() == 2
    assert await history.accepted(uuid4(), "f") is None


async def test_accept_of_the_same_frame_at_once_stores_one(history: DatabaseHistory, visitor: UUID) -> None:
    results = await asyncio.gather(*(history.accept(question(visitor, frame="f")) for _ in range(5)))
    assert sum(each.new for each in results) == 1
    assert len({each.generation for each in results}) == 1
    assert await Generation.objects.acount() == 1


async def test_accept_refuses_a_second_live_answer(history: DatabaseHistory, visitor: UUID) -> None:
    first = await history.accept(question(visitor))
    with pytest.raises(TurnInProgress):
        await history.accept(question(visitor, conversation=first.conversation))
    with pytest.raises(TurnInProgress):
        await history.accept(Redo(visitor=visitor, frame="r", answer=first.answer))
    assert await Message.objects.acount() == 2
    await history.finish(first.generation, "x", STOP)
    await history.accept(question(visitor, conversation=first.conversation))


async def test_a_conversation_goes_on_below_what_is_shown(history: DatabaseHistory, visitor: UUID) -> None:
    conversation = await said(history, visitor, "one", "1")
    await said(history, visitor, "two", "2", conversation)
    accepted = await history.accept(question(visitor, "three", conversation=conversation))
    assert [message.content for message in accepted.prompt] == ["one", "1", "two", "2", "three"]


async def test_a_parent_makes_a_branch(history: DatabaseHistory, visitor: UUID) -> None:
    conversation = await said(history, visitor, "one", "1")
    first = (await history.branch(visitor, conversation)).messages[-1].id
    await said(history, visitor, "two", "2", conversation)
    below = await history.accept(question(visitor, "other", conversation=conversation, branches=True, parent=first))
    assert [message.content for message in below.prompt] == ["one", "1", "other"]
    await history.finish(below.generation, "x", STOP)
    root = await history.accept(question(visitor, "new root", conversation=conversation, branches=True))
    assert [message.content for message in root.prompt] == ["new root"]
    assert [m.text for m in (await history.branch(visitor, conversation)).messages] == ["new root", ""]


async def test_a_parent_must_be_an_answer_of_the_conversation(history: DatabaseHistory, visitor: UUID) -> None:
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
    assert await Conversation.objects.acount() == 2


async def test_redo_puts_a_further_answer_beside_the_first(history: DatabaseHistory, visitor: UUID) -> None:
    conversation = await said(history, visitor, "one", "1")
    asked, answer = (await history.branch(visitor, conversation)).messages
    redone = await history.accept(Redo(visitor=visitor, frame="r", answer=answer.id))
    assert redone.message == asked.id
    assert redone.prompt == (ChatMessage("user", "one"),)
    shown = (await history.branch(visitor, conversation)).messages
    assert [message.id for message in shown] == [asked.id, redone.answer]


@pytest.mark.parametrize("reason", ["length", "cancelled", "timeout", "error", "interrupted"])
async def test_a_cut_off_answer_goes_on_in_its_place(history: DatabaseHistory, visitor: UUID, reason: str) -> None:
    first = await history.accept(question(visitor, "one"))
    await history.finish(first.generation, "1", Finished(reason=reason))  # type: ignore[arg-type]
    more = await history.accept(Continue(visitor=visitor, frame="c", answer=first.answer))
    assert (more.conversation, more.message, more.answer) == (first.conversation, first.message, first.answer)
    assert more.text == "1"
    assert more.prompt == (ChatMessage("user", "one"), ChatMessage("assistant", "1"))
    assert await history.checkpoint({more.generation: "12"}) == set()
    with pytest.raises(TurnInProgress):
        await history.accept(Continue(visitor=visitor, frame="d", answer=first.answer))
    await history.finish(more.generation, "123", Finished(reason="stop"))
    (_, answer) = (await history.branch(visitor, first.conversation)).messages
    assert (answer.text, answer.generation and answer.generation.id) == ("123", more.generation)
    again = await history.accept(Continue(visitor=visitor, frame="c", answer=first.answer))
    assert (again.generation, again.new) == (more.generation, False)


async def test_an_answer_that_is_complete_or_empty_does_not_go_on(history: DatabaseHistory, visitor: UUID) -> None:
    for text, reason in (("complete", "stop"), ("", "error")):
        accepted = await history.accept(question(visitor))
        await history.finish(accepted.generation, text, Finished(reason=reason))  # type: ignore[arg-type]
        with pytest.raises(NothingToContinue):
            await history.accept(Continue(visitor=visitor, frame="c", answer=accepted.answer))
        with pytest.raises(NotFound):
            await history.accept(Continue(visitor=uuid4(), frame="c", answer=accepted.answer))
        with pytest.raises(NotFound):
            await history.accept(Continue(visitor=visitor, frame="c", answer=accepted.message))


async def test_the_prompt_leaves_out_questions_without_an_answer(history: DatabaseHistory, visitor: UUID) -> None:
    conversation = await said(history, visitor, "unanswered", "")
    accepted = await history.accept(question(visitor, "again", conversation=conversation))
    assert accepted.prompt == (ChatMessage("user", "again"),)


async def test_what_is_anothers_is_not_found(history: DatabaseHistory, visitor: UUID) -> None:
    accepted = await history.accept(question(visitor))
    stranger = uuid4()
    assert not await history.owns(stranger, accepted.generation)
    assert await history.owns(visitor, accepted.generation)
    await history.finish(accepted.generation, "secret", STOP)
    for attempt in (
        history.branch(stranger, accepted.conversation),
        history.answer(stranger, accepted.conversation, accepted.generation),
        history.accept(question(stranger, conversation=accepted.conversation)),
        history.accept(Redo(visitor=stranger, frame="r", answer=accepted.answer)),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert (await history.conversations(stranger)).conversations == []
    assert await Message.objects.acount() == 2
    assert not await Visitor.objects.filter(pk=stranger).aexists()


async def test_an_answer_is_found_in_its_own_conversation_only(history: DatabaseHistory, visitor: UUID) -> None:
    one, two = [await history.accept(question(visitor)) for _ in range(2)]
    with pytest.raises(NotFound):
        await history.answer(visitor, one.conversation, two.generation)


async def test_conversations_come_latest_first_page_by_page(
    history: DatabaseHistory, visitor: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "PAGE_SIZE", 2)
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
    ],
)
def test_title_is_the_first_line_that_says_something(text: str, title: str) -> None:
    assert title_of(text) == title


@pytest.mark.parametrize("state", ["queued", "running"])
def test_the_database_itself_holds_both_keys(visitor: UUID, state: str) -> None:
    owner = Visitor.objects.create(pk=visitor)
    conversation = Conversation.objects.create(visitor=owner, title="x", updated="2026-01-01T00:00Z")
    answer = conversation.messages.create(role="assistant")
    row = {"visitor": owner, "conversation": conversation, "answer": answer, "owner": uuid4()}
    Generation.objects.create(**row, frame="f", state=state)
    with pytest.raises(IntegrityError, match="frame"):
        Generation.objects.create(**row, frame="f", state="stop")
    with pytest.raises(IntegrityError, match="conversation"):
        Generation.objects.create(**row, frame="g", state="queued")
    Generation.objects.create(**row, frame=None, state="stop")
    Generation.objects.create(**row, frame=None, state="stop")


async def test_many_writers_at_once_are_never_refused_by_the_database(history: DatabaseHistory) -> None:
    accepted = await asyncio.gather(*(history.accept(question(uuid4())) for _ in range(40)))
    ended = await asyncio.gather(*(history.finish(each.generation, "x", STOP) for each in accepted))
    assert all(ended)
    assert await sync_to_async(Message.objects.filter(text="x").count)() == 40
