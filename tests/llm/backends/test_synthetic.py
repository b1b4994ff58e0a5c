"""The synthetic backend has room for so many words, and leaves old turns out as a model does."""

from __future__ import annotations

import pytest

from llm.backends.synthetic import PROMPT_LENGTH, SyntheticBackend
from llm.errors import ContextLengthExceeded
from tests.llm.prompts.rendered import asked


def backend() -> SyntheticBackend:
    return SyntheticBackend(tokens=5, rate=100, max_new_tokens=10)


def test_a_prompt_that_fits_is_whole() -> None:
    prepared = backend().prepare(asked("one two", "three", "four", system="five"))
    assert (prepared.prompt_tokens, prepared.left_out, prepared.need) == (5, 0, 15)


def test_the_oldest_turns_are_left_out() -> None:
    prepared = backend().prepare(asked(*["word " * 100] * 400, "the last", system="be kind"))
    assert prepared.prompt_tokens <= PROMPT_LENGTH
    assert prepared.left_out == 200 - (prepared.prompt_tokens - 4) // 200 > 150


def test_a_last_text_that_cannot_fit_is_refused() -> None:
    with pytest.raises(ContextLengthExceeded, match=rf"{PROMPT_LENGTH + 1} tokens"):
        backend().prepare(asked("old", "text", "word " * (PROMPT_LENGTH + 1)))
