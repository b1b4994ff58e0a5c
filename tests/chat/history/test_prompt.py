"""Whatever became of a branch, the model is asked in turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.history.prompt import prompt
from chat.history.values import ConversationSettings

SAID = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["", "text"])), max_size=12)


def asked(*said: tuple[str, str], partial: str = "", **settings: Any) -> list[tuple[str, str]]:
    return [(each.role, each.content) for each in prompt(ConversationSettings(**settings), said, partial)]


@given(said=SAID, partial=st.sampled_from(["", "part"]))
def test_questions_and_answers_alternate_and_the_last_question_stays(said: list[tuple[str, str]], partial: str) -> None:
    messages = asked(*said, ("user", "the last"), partial=partial)
    roles = [role for role, _ in messages]
    assert roles == ["user" if i % 2 == 0 else "assistant" for i in range(len(roles))]
    assert messages[-1] == (("assistant", partial) if partial else ("user", "the last"))
    assert all(text for role, text in messages if role == "assistant")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ([("user", "a"), ("assistant", "b")], ["a", "b"]),
        ([("user", "a"), ("assistant", "")], []),
        ([("user", "a")], []),
        ([("assistant", "b")], []),
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "")], ["a", "b"]),
    ],
    ids=["answered", "stopped at once", "its answer deleted", "its question deleted", "failed later"],
)
def test_what_is_shown_of_what_was_said(said: list[tuple[str, str]], shown: list[str]) -> None:
    assert [text for _, text in asked(*said, ("user", "the last"))] == [*shown, "the last"]
