"""Keys and values are used again: those of a conversation in its next turn, those of the operator by everyone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from llm.engine import verify
from llm.engine.kvcache import Kept
from llm.engine.model_runner import PackedModel
from llm.engine.prefixes import OPERATOR, Prefixes
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.tokens import common_length
from tests.llm.engine.test_step import prompt, run, sequence
from tests.llm.models import FAMILIES, generated, tiny

PLENTY = 100_000


@pytest.fixture(scope="module")
def forward() -> PackedModel:
    return verify.packed(tiny())


def answered(engine: Engine, tokens: list[int], count: int = 10, **options: Any) -> Sequence:
    one = sequence(tokens, count, **options)
    run(engine, {0: [one]})
    return one


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_turn_equals_generate(family: str) -> None:
    """From the whole history, over the border of a length class, in chunks; also where the history was changed."""
    model = tiny(family)
    first = prompt(118)
    expected = generated(model, first, 20, eos_token_id=None)
    second = [*first, *expected, *prompt(15, seed=3)]
    edited = [*second[:60], *prompt(15, seed=4)]
    answers = [generated(model, tokens, 12, eos_token_id=None) for tokens in (second, edited)]
    engine = Engine(verify.packed(model), kv_tokens=PLENTY, chunk_tokens=9)
    assert answered(engine, first, 20, conversation="a").generated == expected
    again = answered(engine, second, 12, conversation="a")
    # the last token of an answer was said, but nothing was computed from it
    assert (again.generated, again.cached) == (answers[0], len(first) + 20 - 1)
    changed = answered(engine, edited, 12, conversation="a")
    assert (changed.generated, changed.cached) == (answers[1], 60)


def test_the_same_question_again_computes_its_last_token_only(forward: PackedModel) -> None:
    engine = Engine(forward, kv_tokens=PLENTY)
    one = answered(engine, prompt(20), conversation="a")
    again = answered(engine, prompt(20), conversation="a")
    assert (again.generated, again.cached) == (one.generated, 19)


def test_nobody_gets_what_is_another_conversations(forward: PackedModel) -> None:
    engine = Engine(forward, kv_tokens=PLENTY)
    answered(engine, prompt(40), conversation="a")
    answered(engine, prompt(40))
    assert [answered(engine, prompt(40), conversation=name).cached for name in ("b", "")] == [0, 0]


def test_what_the_operator_says_is_everyones(forward: PackedModel) -> None:
    engine = Engine(forward, kv_tokens=PLENTY, chunk_tokens=16)
    opening = prompt(30)
    one = answered(engine, opening + prompt(8, seed=1), conversation="a", common=30)
    other = answered(engine, opening + prompt(9, seed=2), conversation="b", common=30)
    assert (one.cached, other.cached) == (0, 30)
    assert other.generated == answered(Engine(forward), opening + prompt(9, seed=2)).generated
    assert engine.allocated_bytes == (30 + 38 + 9 + 39 + 9) * engine.cache.layout.token_bytes


def test_a_prompt_with_less_of_the_operator_takes_nothing_from_the_others(forward: PackedModel) -> None:
    """One whose own system message stands in the place of the operator's has only the template's first tokens."""
    engine = Engine(forward, kv_tokens=PLENTY)
    opening = prompt(30)
    answered(engine, opening + prompt(8, seed=1), conversation="a", common=30)
    own = answered(engine, opening[:3] + prompt(20, seed=2), conversation="b", common=3)
    assert own.cached == 3
    assert answered(engine, opening + prompt(9, seed=3), conversation="c", common=30).cached == 30


@torch.inference_mode()
def test_what_is_kept_makes_room_for_what_runs(forward: PackedModel) -> None:
    """What is kept and what is needed are never more than there is; who came back last is forgotten last."""
    token = forward.layout.token_bytes
    engine = Engine(forward, kv_tokens=100)
    for name in ("a", "b"):
        answered(engine, prompt(31), conversation=name)
    assert engine.allocated_bytes == 80 * token
    answered(engine, prompt(31), conversation="a")
    engine.add(sequence(prompt(30), 20))
    assert engine.allocated_bytes == (40 + 30) * token
    assert answered(engine, prompt(31), conversation="a").cached == 30
    assert answered(engine, prompt(31), conversation="b").cached == 0


@torch.inference_mode()
def test_cancelled_in_prefill_what_it_began_with_is_kept(forward: PackedModel) -> None:
    engine = Engine(forward, kv_tokens=PLENTY, chunk_tokens=4)
    first = answered(engine, prompt(20), conversation="a")
    second = [*first.prompt, *first.generated, *prompt(30, seed=1)]
    cancelled = sequence(second, conversation="a")
    engine.add(cancelled)
    engine.step()
    engine.remove(cancelled)
    assert answered(engine, second, conversation="a").cached == cancelled.cached == 29


@torch.inference_mode()
def test_numbers_that_went_wrong_are_not_kept() -> None:
    model = tiny()
    forward = verify.packed(model)
    engine = Engine(forward, kv_tokens=PLENTY)
    poisoned = prompt(20)
    model.get_input_embeddings().weight[poisoned[3]] = float("nan")
    answered(engine, poisoned, conversation="a")
    assert engine.allocated_bytes == 0


def test_least_recently_used_goes_first() -> None:
    prefixes = Prefixes()
    kept = Kept(10, [], [])
    for name in (OPERATOR, "a", "b"):
        prefixes.keep(name, [*range(10)], kept)
    assert prefixes.take("c", [*range(12)]) == (kept, 10)
    prefixes.fit(20)
    assert prefixes.take("a", [5]) == (None, 0)
    assert prefixes.tokens == 20
    prefixes.fit(0)
    prefixes.fit(-5)
    assert prefixes.tokens == 0


@pytest.mark.parametrize(("one", "other", "length"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1)])
def test_common_length(one: list[int], other: list[int], length: int) -> None:
    assert common_length(one, other) == common_length(other, one) == length
