"""A conversation of any length costs no more to prepare than one that has room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from llm.errors import ContextLengthExceeded
from llm.prompts import ChatPrompt
from llm.prompts.fitting import CHARACTERS, MOST, TurnCounts
from llm.request import ChatMessage
from llm.sampling import SamplingParams
from tests.llm.prompts import templates
from tests.llm.prompts.rendered import Shown, asked
from tests.llm.tokenizers import byte_level

CONTEXT, ANSWER = 1000, 200
ROOM = CONTEXT - ANSWER
AROUND = 80
"""Characters at most that a template of these tests writes around a turn and the question it is counted with."""


class Measured(Shown):
    """Notes how many characters are handed to the tokenizer, call by call."""

    def __init__(self, template: str = templates.CHATML, **settings: Any) -> None:
        self.handed: list[int] = []
        tokenizer = byte_level()

        class Noting(type(tokenizer)):  # type: ignore[misc]
            def __call__(noting, text: str, **options: Any) -> Any:
                self.handed.append(len(text))
                return super().__call__(text, **options)

        tokenizer.__class__ = Noting
        super().__init__(tokenizer, template, max_new_tokens=ANSWER, **settings)
        self.handed.clear()

    def handed_for(self, texts: Sequence[str]) -> int:
        self.handed.clear()
        prepared = self.prepared(*texts, context=CONTEXT)
        assert len(prepared.tokens) <= ROOM
        return sum(self.handed)


def conversation(turns: int, characters: int) -> list[str]:
    """Turns of so many characters, each another one, and a question."""
    texts = []
    for i in range(turns):
        texts += [f"{i} " + "hello " * (characters // 12), f"{i} " + "hello " * (characters // 12)]
    return [*texts, "who?"]


@pytest.mark.parametrize(("turns", "characters"), [(300, 32_000), (3000, 300), (20_000, 2)])
def test_ten_megabytes_cost_what_has_room(turns: int, characters: int) -> None:
    """Old turns are counted for as many characters as the room can have, and the prompt is made three times at most."""
    measured = Measured()
    texts = conversation(turns, characters)
    bound = CHARACTERS * ROOM
    counted = bound + AROUND * bound // 64
    assert measured.handed_for(texts) <= counted + 3 * bound
    assert max(measured.handed) <= bound + AROUND * bound // 64


def test_each_turn_is_counted_once() -> None:
    """What the next question costs: its own prompt, the shortest one, and the turn that is new."""
    measured = Measured()
    texts = conversation(40, 100)
    measured.handed_for(texts)
    for i in range(20):
        texts += [f"answer {i}", "and then?"]
        cost = measured.handed_for(texts)
        shown = len(measured.text(*texts[-3:])) + len(
            measured.tokenizer.decode(measured.prepared(*texts, context=CONTEXT).tokens)
        )
        assert cost <= shown + len(f"answer {i}and then?") + AROUND


def test_what_is_sure_to_fit_is_made_once() -> None:
    measured = Measured()
    assert measured.handed_for(["hello", "hi", "who?"]) == len(measured.text("hello", "hi", "who?"))
    assert len(measured.handed) == 2  # the second is that of `text`


def test_how_many_turns_are_left_out() -> None:
    measured = Measured()
    for turns in (1, 5, 10, 40, 300):
        texts = conversation(turns, 100)
        prepared = measured.prepared(*texts, context=CONTEXT)
        shown = measured.tokenizer.decode(prepared.tokens)
        assert shown.count("<|im_start|>user") == turns + 1 - prepared.left_out
        assert (prepared.left_out > 0) == (turns >= 40)
    request = asked(*conversation(40, 100))
    sent = type(request)(messages=request.messages, left_out=7)
    here = measured._renderer.prepare(request, CONTEXT).left_out
    assert measured._renderer.prepare(sent, CONTEXT).left_out == here + 7


def test_reasoning_that_the_template_cuts_out_takes_no_room() -> None:
    """Turns are counted as the template writes them when they are old."""
    texts = []
    for i in range(6):
        texts += [f"question {i}", "<think>" + "hm " * 300 + f"</think>\n\nanswer {i}"]
    measured = Measured(templates.QWEN3)
    assert measured.prepared(*texts, "who?", context=CONTEXT).left_out == 0
    assert Measured().prepared(*texts, "who?", context=CONTEXT).left_out == 6


class Grows(ChatPrompt):
    """Turns that are longer together than one by one."""

    def create_prompt(self, opts: Any = None) -> str:
        texts = [content.message or "" for content in self.chat_contents]
        return "|".join(texts) + "x" * len(texts) ** 2


class Jumps(ChatPrompt):
    """Turns that have no length of their own, and are too long together: counts mislead altogether."""

    def create_prompt(self, opts: Any = None) -> str:
        return "x" * (ROOM + 50 if len(self.chat_contents) > 4 else 5)


class Last(ChatPrompt):
    """One that shows the last question only."""

    def create_prompt(self, opts: Any = None) -> str:
        return self.get_requester_last_msg() or ""


@pytest.mark.parametrize("turns", [5, 20, 100])
@pytest.mark.parametrize(("name", "left_out"), [("Grows", None), ("Jumps", "all"), ("Last", 0)])
def test_a_prompt_class_whose_turns_do_not_add_up(name: str, left_out: int | str | None, turns: int) -> None:
    measured = Measured(prompt=f"{__name__}.{name}")
    texts = conversation(turns, 40)
    measured.handed_for(texts)
    assert len(measured.handed) <= turns + 4
    if left_out is not None and turns < 100:
        assert measured.prepared(*texts, context=CONTEXT).left_out == (turns if left_out == "all" else left_out)


def test_a_last_text_that_cannot_fit_is_not_even_counted() -> None:
    measured = Measured()
    for length in (ROOM * MOST, 10_000_000):
        with pytest.raises(ContextLengthExceeded, match=rf"{length + 32} characters .* {ANSWER}; .* {CONTEXT}\."):
            measured.prepared("hello", "hi", "x" * length, context=CONTEXT)
    assert measured.handed == []
    with pytest.raises(ContextLengthExceeded, match="tokens and the answer"):
        measured.prepared("x" * (ROOM * MOST - 100), context=CONTEXT)
    long = measured._renderer.prepare(asked("=" * 700, params=SamplingParams(max_new_tokens=1)), CONTEXT)
    assert len(long.tokens) > 700


def test_counts_are_kept_for_so_many_turns_and_without_their_texts() -> None:
    counted: list[str] = []

    def count(turn: tuple[ChatMessage, ...]) -> int:
        counted.append(turn[0].content)
        return len(turn[0].content)

    counts = TurnCounts(count, most=2)
    one, other, third = ((ChatMessage("user", text),) for text in ("one", "other", "third"))
    assert [counts(turn) for turn in (one, other, one, third, one, other)] == [3, 5, 3, 5, 3, 5]
    assert counted == ["one", "other", "third", "other"]
    assert counts((ChatMessage("assistant", "one"),)) == 3
    assert counted[-1] == "one"
    assert all(type(key) is bytes and len(key) == 16 for key in counts._counts)
