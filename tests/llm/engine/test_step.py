"""The engine gives what `model.generate()` gives, token for token, however sequences come and go."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import Any

import pytest
import torch

from llm.engine import step, verify
from llm.engine.model_runner import PackedModel
from llm.engine.sampler import RowSampling
from llm.engine.sequence import Sequence
from llm.engine.step import Engine, Result
from llm.sampling import SamplingParams
from tests.llm.models import FAMILIES, VOCABULARY, generated, tiny

GREEDY = SamplingParams(temperature=0.0)


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(
        3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(seed * 1000 + length)
    ).tolist()


def sequence(tokens: list[int], count: int = 20, **options: Any) -> Sequence:
    return Sequence(tokens, options.pop("params", GREEDY), max_new_tokens=count, **options)


@torch.inference_mode()
def run(
    engine: Engine, joins: dict[int, list[Sequence]], leaves: dict[int, list[Sequence]] | None = None
) -> list[Result]:
    """Step until all is done; sequences join before the steps they are filed under, and leave likewise."""
    results, step = [], 0
    while engine.busy or step <= max(joins):
        for joining in joins.get(step, ()):
            engine.add(joining)
        for leaving in (leaves or {}).get(step, ()):
            engine.remove(leaving)
        results += engine.step()
        step += 1
    return results


@pytest.fixture
def forward() -> PackedModel:
    return verify.packed(tiny())


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_generate(family: str) -> None:
    """Alone; and in a batch of different lengths, in chunks, joining and leaving, over the border of a length class."""
    model = tiny(family)
    prompts = [prompt(length) for length in (5, 11, 26, 120, 150)]
    counts = [30, 12, 25, 20, 10]
    expected = [generated(model, p, n, eos_token_id=None) for p, n in zip(prompts, counts, strict=True)]
    forward = verify.packed(model)
    for tokens, count, answer in zip(prompts, counts, expected, strict=True):
        alone = sequence(tokens, count)
        run(Engine(forward), {0: [alone]})
        assert alone.generated == answer
    batch = [sequence(tokens, count) for tokens, count in zip(prompts, counts, strict=True)]
    gone = sequence(prompt(33, seed=7), 100)
    engine = Engine(forward, chunk_tokens=12)
    run(engine, {0: batch[:1], 3: [batch[1], gone], 4: batch[2:4], 9: batch[4:]}, {17: [gone]})
    assert [one.generated for one in batch] == expected
    assert engine.cache.allocated_bytes == 0


def test_ends_at_a_stop_token_as_generate_does() -> None:
    model = tiny()
    full = generated(model, prompt(9), 20, eos_token_id=None)
    stop = full[7]
    one = sequence(prompt(9), 20, stop_tokens=frozenset({stop}))
    results = run(Engine(verify.packed(model)), {0: [one]})
    assert one.generated == full[: full.index(stop)]
    assert results[-1] == Result(one, None, "stop")


def test_results_of_an_answer(forward: PackedModel) -> None:
    one = sequence(prompt(5), 3)
    results = run(Engine(forward), {0: [one]})
    assert [(r.token, r.finish) for r in results] == list(zip(one.generated, [None, None, "length"], strict=True))


@torch.inference_mode()
def test_decode_goes_on_beside_a_long_prompt(forward: PackedModel) -> None:
    engine = Engine(forward, chunk_tokens=10)
    short, long = sequence(prompt(4), 50), sequence(prompt(200), 1)
    engine.add(short)
    engine.step()
    engine.add(long)
    for _ in range(19):
        assert [result.sequence for result in engine.step()] == [short]
    assert [result.sequence for result in engine.step()] == [short, long]


@torch.inference_mode()
def test_short_prompts_do_not_wait_for_a_long_one(forward: PackedModel) -> None:
    engine = Engine(forward, chunk_tokens=32)
    long, short = sequence(prompt(400), 1), sequence(prompt(10), 1)
    engine.add(long)
    engine.add(short)
    assert [result.sequence for result in engine.step()] == [short]


@torch.inference_mode()
def test_leaving_frees_memory_in_prefill_and_in_decode(forward: PackedModel) -> None:
    engine = Engine(forward, chunk_tokens=10)
    decoding, waiting = sequence(prompt(5)), sequence(prompt(50))
    engine.add(decoding)
    engine.step()
    engine.add(waiting)
    engine.step()
    for one in (decoding, decoding, waiting, waiting):
        engine.remove(one)
    assert (engine.busy, engine.cache.allocated_bytes) == (False, 0)
    assert engine.step() == []


@pytest.mark.parametrize("tokens", [[], [VOCABULARY], [-1]])
def test_a_prompt_outside_the_vocabulary_fails_alone(forward: PackedModel, tokens: list[int]) -> None:
    engine = Engine(forward)
    with pytest.raises(ValueError, match="vocabulary"):
        engine.add(sequence(tokens))
    assert not engine.busy


def test_a_row_without_numbers_fails_alone() -> None:
    """NaN in one sequence's keys and values reaches nobody else, not even who takes its place in memory."""
    model = tiny()
    poison = VOCABULARY - 1
    expected = [generated(model, prompt(n), 20, eos_token_id=None) for n in (30, 8, 5)]
    forward = verify.packed(model)
    with torch.no_grad():
        model.get_input_embeddings().weight[poison] = float("nan")
    good, bad, later = sequence(prompt(30)), sequence([poison, 5]), sequence(prompt(5))
    also_good = sequence(prompt(8))
    sick = sequence(prompt(12))
    engine = Engine(forward, sample=lambda logits, rows: _say(poison, sick, step.sampler.sample(logits, rows), rows))
    results = run(engine, {0: [good, bad, sick], 1: [also_good], 4: [later]})
    ends = {result.sequence: result.finish for result in results if result.finish}
    assert ends == {bad: "error", sick: "error", good: "length", also_good: "length", later: "length"}
    assert [one.generated for one in (good, also_good, later)] == expected
    assert engine.cache.allocated_bytes == 0


def _say(token: int, whose: Sequence, tokens: list[int | None], rows: Any) -> list[int | None]:
    """What was sampled, but for one sequence, that says `token` until its numbers fail."""
    return [
        token if row is whose.sampling and said is not None else said for said, row in zip(tokens, rows, strict=True)
    ]


@torch.inference_mode()
def test_no_memory_for_one_ends_that_one(forward: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(forward)
    good, bad = sequence(prompt(5), 4), sequence(prompt(6), 4)
    settle = engine.cache.settle

    def settle_but_one(slot: Any) -> None:
        if slot is bad.slot:
            raise MemoryError
        settle(slot)

    monkeypatch.setattr(engine.cache, "settle", settle_but_one)
    engine.add(good)
    engine.add(bad)
    ends = {r.sequence: r.finish for r in run(engine, {0: []}) if r.finish}
    assert ends == {good: "length", bad: "error"}
    assert engine.cache.allocated_bytes == 0


@torch.inference_mode()
def test_no_memory_to_keep_an_answer_ends_no_answer(forward: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither that of others, nor one that is cancelled; and all memory is free again."""
    engine = Engine(forward, kv_tokens=1000)

    def no_memory(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(engine.cache, "keep", no_memory)
    ending, longer, cancelled = (sequence(prompt(9), n, conversation=str(n), common=4) for n in (2, 6, 20))
    for each in (ending, longer, cancelled):
        engine.add(each)
    for _ in range(3):
        engine.step()
    engine.remove(cancelled)
    ends = {result.sequence: result.finish for result in run(engine, {0: []}) if result.finish}
    assert ends == {longer: "length"}
    assert len(ending.generated) == 2
    assert engine.allocated_bytes == 0


FAR = 205


class NoRoomFar:
    """A forward that has no memory for a token at FAR or beyond."""

    def __init__(self, forward: PackedModel) -> None:
        self.layout, self.vocabulary = forward.layout, forward.vocabulary
        self._forward = forward

    def __call__(self, tokens: list[int], positions: list[int], *more: Any) -> torch.Tensor:
        if max(positions) >= FAR:
            raise MemoryError
        return self._forward(tokens, positions, *more)


@pytest.mark.parametrize("length", [FAR + 20, FAR - 5], ids=["in prefill", "in decode"])
def test_no_memory_for_one_in_a_step_ends_that_one(length: int) -> None:
    """The others lose nothing, wherever they are: in decode, in prefill, or about to begin."""
    model = tiny()
    prompts = [prompt(n) for n in (30, 8, 100, 5)]
    expected = [generated(model, tokens, 20, eos_token_id=None) for tokens in prompts]
    first, second, third, late = others = [sequence(tokens) for tokens in prompts]
    bad = sequence(prompt(length), 50)
    engine = Engine(NoRoomFar(verify.packed(model)), chunk_tokens=40)
    results = run(engine, {0: [bad, first], 4: [second, third], 12: [late]})
    ends = {result.sequence: result.finish for result in results if result.finish}
    assert ends == {bad: "error"} | dict.fromkeys(others, "length")
    assert [one.generated for one in others] == expected
    assert engine.cache.allocated_bytes == 0


def test_a_token_that_cannot_be_chosen_ends_its_own_sequence() -> None:
    model = tiny()
    good, bad = sequence(prompt(9)), sequence(prompt(8))

    def sample(logits: torch.Tensor, rows: SequenceOf[RowSampling]) -> list[int | None]:
        if bad.sampling in rows and bad.generated:
            raise IndexError
        return step.sampler.sample(logits, rows)

    expected = generated(model, good.prompt, 20, eos_token_id=None)
    engine = Engine(verify.packed(model), sample=sample)
    ends = {result.sequence: result.finish for result in run(engine, {0: [good, bad]}) if result.finish}
    assert ends == {good: "length", bad: "error"}
    assert good.generated == expected
    assert engine.cache.allocated_bytes == 0


def test_repetition_penalty_equals_generate() -> None:
    """Over prompt and answer: without it this model repeats itself."""
    model = tiny()
    expected = generated(model, prompt(9), 40, eos_token_id=None, repetition_penalty=1.3)
    assert expected != generated(model, prompt(9), 40, eos_token_id=None)
    one = sequence(prompt(9), 40, params=SamplingParams(temperature=0.0, repetition_penalty=1.3))
    run(Engine(verify.packed(model)), {0: [one, sequence(prompt(20), 40)]})
    assert one.generated == expected


def test_a_seed_repeats_an_answer_whatever_the_batch(forward: PackedModel) -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, repetition_penalty=1.1, seed=7)

    def answer(others: int) -> list[int]:
        mine = sequence(prompt(10), 15, params=params)
        rest = [sequence(prompt(5 + 9 * i), 40, params=SamplingParams(temperature=1.5)) for i in range(others)]
        run(Engine(forward, chunk_tokens=16), {0: rest, 2: [mine]})
        return mine.generated

    alone = answer(0)
    assert answer(1) == alone == answer(6)
    assert len(set(alone)) > 5
