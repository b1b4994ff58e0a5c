"""Which turns of a conversation are left out, in whatever their size is counted."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.errors import InvalidRequest
from llm.request import ChatMessage, GenerationRequest
from llm.service import wire
from llm.turns import SENT, bounded, characters, in_turns, left_out
from tests.llm.prompts.rendered import asked

SIZES = st.lists(st.integers(0, 40), max_size=30)


def test_turns() -> None:
    system, turns = in_turns(asked("a", "b", "c", "d", "e", system="s").messages)
    assert [message.content for message in system] == ["s"]
    assert [[message.content for message in turn] for turn in turns] == [["a", "b"], ["c", "d"], ["e"]]
    assert in_turns([]) == ((), [])
    assert in_turns(system) == (system, [])


@given(old=SIZES, others=st.integers(0, 100), room=st.integers(1, 300))
def test_what_stays_has_room(old: list[int], others: int, room: int) -> None:
    gone = left_out(old, others, room)
    assert others + sum(old[gone:]) <= room or gone == len(old)
    if sum(old) + others <= room:
        assert gone == 0
    elif gone and others + sum(old) <= room + 4 * room:
        assert others + sum(old[gone - 1 :]) > room - max(1, room // 4)  # no more than a step more than has to go


@given(sizes=st.lists(st.integers(1, 40), min_size=2, max_size=200), room=st.integers(80, 300))
def test_as_turns_are_added_a_cut_stays_for_a_quarter_of_the_room(sizes: list[int], room: int) -> None:
    cuts = [left_out(sizes[:end], sizes[end], room) for end in range(len(sizes))]
    assert all(one <= other for one, other in pairwise(cuts))
    assert len(set(cuts)) <= sum(sizes) / (room // 4) + 2


def test_what_is_sent_has_a_bound() -> None:
    """A conversation for which there is room in no model is not sent whole; the last turn and the system prompt are."""
    texts = [letter * 16_000 for letter in "ab" * 400]
    request = asked(*texts, "the last", system="Be kind.")
    sent = bounded(request)
    assert SENT / 2 < characters(*sent.messages) <= SENT
    assert [sent.messages[0].content, sent.messages[-1].content] == ["Be kind.", "the last"]
    assert sent.left_out == 400 - (len(sent.messages) - 2) // 2 > 0
    assert sent.messages[1].role == "user"
    assert len(wire.encode(wire.Run(1, sent))) < wire.MAX_FRAME
    assert bounded(sent) == sent
    again = bounded(msgspec.structs.replace(request, messages=(*request.messages, ChatMessage("assistant", "yes"))))
    assert again.messages[:-1] == sent.messages


def test_what_is_sent_stays_as_it_is_while_there_is_room() -> None:
    request = asked("a", "b", "c")
    assert bounded(request) is request


def test_a_last_text_beyond_the_bound_is_all_that_is_sent() -> None:
    sent = bounded(asked("a", "b", "c" * (SENT + 1)))
    assert [len(message.content) for message in sent.messages] == [SENT + 1]
    assert sent.left_out == 1
    system = GenerationRequest(messages=(ChatMessage("system", "s" * (SENT + 1)),))
    assert bounded(system) == system


@pytest.mark.parametrize("text", ["\ud800", "hi \udfff", "\ud83d \ude00"])
def test_half_a_character_is_said_to_be_so(text: str) -> None:
    """It is nobody's fault but the text's: no other process and no tokenizer takes it."""
    with pytest.raises(InvalidRequest, match="half a character"):
        ChatMessage("user", text)
