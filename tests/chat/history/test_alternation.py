"""Whatever a visitor does to a conversation, its branches alternate, and so does what the model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chat.errors import HistoryError
from chat.history import database, history, temporary
from chat.history.contract import Store
from chat.history.database import edits
from chat.history.ids import is_temporary
from chat.history.values import Accepted, Asked, Caller, Changes, Continue, Redo
from llm.events import Finished, FinishReason
from tests.chat.conftest import a_visitor, question

pytestmark = pytest.mark.django_db(transaction=True)

ACTS = st.sampled_from(["ask", "ask", "ask below", "ask anew", "redo", "go on", "show", "delete", "delete"])
ENDS = st.tuples(st.sampled_from(get_args(FinishReason)), st.sampled_from(["", "", "An answer", "\n"]))


class Talk:
    """One conversation of one visitor, in one of the stores; every answer has ended before the next act."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.caller = a_visitor()
        self.conversation: UUID | None = None
        self.messages: list[UUID] = []

    def act(self, act: str, at: int, end: Finished, text: str) -> None:
        """Do it to the message number `at`, if it is there and that can be done to it."""
        message = self.messages[at % len(self.messages)] if self.messages else uuid4()
        try:
            match act:
                case "show" if self.conversation is not None:
                    self.store.change(self.caller, self.conversation, Changes(shown=message))
                case "delete" if not is_temporary(message):
                    edits.delete_message(self.caller, message)
                case "redo":
                    self.accept(Redo(caller=self.caller, request_id=uuid4().hex, answer=message), end, text)
                case "go on":
                    self.accept(Continue(caller=self.caller, request_id=uuid4().hex, answer=message), end, text)
                case "ask" | "ask below" | "ask anew":
                    self.ask(None if act == "ask anew" else message, act != "ask", end, text)
        except HistoryError:
            return

    def ask(self, parent: UUID | None, branches: bool, end: Finished, text: str) -> None:
        asked = question(
            self.caller,
            conversation=self.conversation,
            temporary=self.store is temporary,
            branches=branches and self.conversation is not None,
            parent=parent,
        )
        self.accept(asked, end, text)

    def accept(self, asked: Asked, end: Finished, text: str) -> None:
        accepted = history._accept(self.store, asked, uuid4())
        self.conversation = accepted.conversation
        self.messages += [accepted.message, accepted.answer]
        check(accepted, isinstance(asked, Continue))
        assert accepted.store is not None
        assert accepted.store._finish(accepted.generation, accepted.text + text, end)  # type: ignore[attr-defined]

    def shown(self) -> list[str]:
        assert self.conversation is not None
        return [message.role for message in self.store.branch(self.caller, self.conversation, whole=True).messages]


def check(accepted: Accepted, goes_on: bool) -> None:
    roles = [message.role for message in accepted.prompt]
    assert roles == alternating(len(roles))
    assert roles[-1] == ("assistant" if goes_on else "user")
    assert all(message.content for message in accepted.prompt)


def alternating(length: int) -> Sequence[str]:
    return [("user", "assistant")[at % 2] for at in range(length)]


@pytest.mark.parametrize("store", [database, temporary], ids=["database", "session"])
@settings(max_examples=30)
@given(acts=st.lists(st.tuples(ACTS, st.integers(0, 30), ENDS), min_size=3, max_size=14))
def test_no_act_makes_a_branch_that_a_template_cannot_take(store: Store, acts: list) -> None:
    talk = Talk(store)
    for act, at, (reason, text) in acts:
        talk.act(act, at, Finished(reason=reason), text)
        if talk.conversation is not None and store.holds(talk.caller, talk.conversation):
            shown = talk.shown()
            assert shown == alternating(len(shown))


def test_who_writes_on_after_deleting_an_answer_asks_in_the_place_of_its_question() -> None:
    talk = Talk(database)
    end = Finished(reason="stop")
    for _ in range(2):
        talk.act("ask", 0, end, "An answer")
    first, _, second, answer = talk.messages
    talk.act("delete", talk.messages.index(answer), end, "")
    assert talk.shown() == ["user", "assistant", "user"]
    talk.act("ask", 0, end, "Another answer")
    assert talk.conversation is not None
    messages = database.branch(Caller(talk.caller.visitor), talk.conversation).messages
    assert [each.id for each in messages] == [first, talk.messages[1], *talk.messages[4:]]
    assert messages[2].siblings == [second, talk.messages[4]]
