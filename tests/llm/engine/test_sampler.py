"""Sampling: against a plain reference, row by row, whatever else is in the batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llm.engine import sampler
from llm.engine.penalties import TokenTable, adjusted
from llm.engine.sampler import RowSampling, sample
from llm.errors import InvalidRequest
from llm.sampling import DEFAULTS, SamplingParams

DRAWS = 4000
VOCABULARY = 12


def row(prompt: tuple[int, ...] = (0,), **params: Any) -> RowSampling:
    return RowSampling(SamplingParams(**params), prompt, max_new_tokens=64)


def noise(rows: int, vocabulary: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def reference(
    logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Tensor:
    """Probabilities of one row, the plain way: sort, cut, normalise."""
    order = logits.argsort(descending=True)
    kept = (logits[order] / temperature).softmax(-1)
    floor = min_p * kept[0]
    if top_k:
        floor = min_p * kept[0] / kept[:top_k].sum()
        kept[top_k:] = 0
        kept /= kept.sum()
    count = max(1, int((kept.cumsum(-1) - kept < top_p).sum()))
    kept[count:] = 0
    kept[kept < floor] = 0
    return torch.zeros_like(logits).scatter(0, order, kept / kept.sum())


def assert_drawn_as(expected: Tensor, tokens: list[int | None]) -> None:
    """Shares as expected: nothing that cannot be, all else within five standard deviations and a few rare tokens."""
    found = torch.bincount(torch.tensor(tokens), minlength=len(expected)) / len(tokens)
    assert not found[expected == 0].any()
    deviation = (expected * (1 - expected) / len(tokens)).sqrt()
    assert torch.all((found - expected).abs() <= 5 * deviation + 3 / len(tokens))


FILTERS = [
    {"temperature": 1.0, "top_p": 1.0},
    {"temperature": 0.5, "top_p": 1.0},
    {"temperature": 1.5, "top_p": 0.6},
    {"temperature": 1.0, "top_p": 1.0, "top_k": 3},
    {"temperature": 1.0, "top_p": 0.7, "top_k": 4},
    {"temperature": 2.0, "top_p": 0.95, "top_k": 1000},
    {"temperature": 4.0, "top_p": 0.5, "top_k": 3},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "top_p": 0.9, "min_p": 0.3},
    {"temperature": 3.0, "top_p": 0.9, "top_k": 5, "min_p": 0.2},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 1.0},
]


@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize("vocabulary", [VOCABULARY, 200])
def test_distribution(params: dict[str, Any], vocabulary: int) -> None:
    logits = noise(1, vocabulary, seed=5)[0] * 2
    rows = [row(seed=seed, **params) for seed in range(DRAWS)]
    assert_drawn_as(reference(logits, **params), sample(logits.expand(DRAWS, -1), rows))


def test_distribution_after_biases_and_penalties() -> None:
    """All that changes logits comes before the filters."""
    logits = noise(1, VOCABULARY, seed=5)[0] * 2
    params = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.25, "logit_bias": {3: 2.5}}
    rows = [row((1, 2), seed=seed, temperature=0.8, top_p=0.9, **params) for seed in range(DRAWS)]
    for one in rows:
        for token in (4, 4, 2):
            one.saw(token)
    changed = plainly_adjusted(logits.tolist(), SamplingParams(**params), [1, 2], [4, 4, 2])
    expected = reference(torch.tensor(changed), temperature=0.8, top_p=0.9)
    assert_drawn_as(expected, sample(logits.expand(DRAWS, -1), rows))


@pytest.mark.parametrize(
    "params", [{"top_p": 0.9}, {"top_p": 1.0, "min_p": 0.5}, {"top_p": 0.999, "top_k": 90}, {"top_p": 1.0}], ids=str
)
def test_looks_at_more_tokens_when_it_has_to(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    logits = noise(1, 5000) / 10

    def drawn() -> list[list[int | None]]:
        return [sample(logits, [row(seed=seed, temperature=1.0, **params)]) for seed in range(50)]

    few = drawn()
    monkeypatch.setattr(sampler, "CANDIDATES", 5000)
    assert few == drawn()
    allowed = reference(logits[0], **params) > 0
    assert allowed.sum() > sampler.BLOCK
    assert all(allowed[token] for (token,) in few)
    assert len({token for (token,) in few}) > 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_top_p_always_keeps_the_most_likely_token(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 12.0, 0.0, 0.0]], dtype=dtype).repeat(500, 1)
    rows = [row(seed=seed, temperature=1.0, top_p=0.0001) for seed in range(500)]
    assert set(sample(logits, rows)) == {1}


def test_half_precision_is_computed_in_full() -> None:
    logits = noise(1, 5000, seed=2).bfloat16()
    for params in ({"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "repetition_penalty": 1.3}):
        for seed in range(100):
            assert sample(logits, [row(seed=seed, **params)]) == sample(logits.float(), [row(seed=seed, **params)])


@given(data=st.data())
def test_most_likely_and_largest(data: st.DataObject) -> None:
    """Whatever the vocabulary's size; of equals the first."""
    size = data.draw(st.integers(1, 400) | st.sampled_from([64 * 300, 64 * 300 + 1]))
    values = torch.randint(0, 9, (3, size), generator=torch.Generator().manual_seed(size)).float()
    best, tokens = sampler.most_likely(values)
    assert tokens.tolist() == [one.index(max(one)) for one in values.tolist()]
    assert torch.equal(best, values.amax(-1))
    found, where = sampler.largest(values, min(64, size))
    assert torch.equal(found, values.topk(min(64, size)).values)
    assert torch.equal(values.gather(1, where), found)
    assert all(len(set(one)) == len(one) for one in where.tolist())


def test_temperature_zero_is_argmax() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    assert sample(logits, [row(temperature=0.0, top_p=0.1, top_k=1, seed=1)]) == [1]


def test_each_row_has_its_own_parameters() -> None:
    logits = torch.tensor([[4.0, 3.9, -9.0, -9.0]]).repeat(4, 1)
    rows = [
        row((0,), temperature=0.0, repetition_penalty=2.0),
        row((3,), temperature=0.0),
        row((3,), temperature=1.0, top_p=1.0, top_k=1, seed=1),
        row((3,), temperature=0.01, top_p=1.0, seed=1),
    ]
    assert sample(logits, rows)[:3] == [1, 0, 0]


def plainly_adjusted(logits: list[float], params: SamplingParams, prompt: list[int], answer: list[int]) -> list[float]:
    """What biases and penalties do, as their definitions say it."""
    params = params.over(DEFAULTS)
    times, changed = Counter(answer), []
    for token, logit in enumerate(logits):
        logit += (params.logit_bias or {}).get(token, 0.0)
        penalty = params.repetition_penalty or 0.0
        if token in prompt or token in answer:
            if params.repetition_penalty_method == "subtractive":
                logit -= penalty
            else:
                logit = logit * penalty if logit < 0 else logit / penalty
        logit -= (params.frequency_penalty or 0.0) * times[token]
        logit -= (params.presence_penalty or 0.0) * (times[token] > 0)
        changed.append(logit)
    return changed


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)
PENALTIES = st.builds(
    SamplingParams,
    repetition_penalty=st.none() | st.floats(0.5, 3),
    repetition_penalty_method=st.sampled_from([None, "multiplicative", "subtractive"]),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
    logit_bias=st.none() | st.dictionaries(st.integers(0, VOCABULARY - 1), st.floats(-100, 100), max_size=4),
)


@given(st.lists(st.tuples(PENALTIES, TOKENS, TOKENS), min_size=1, max_size=5))
def test_biases_and_penalties(requests: list[tuple[SamplingParams, list[int], list[int]]]) -> None:
    """Each row as its definition says, in one pass for all; what was given is not changed."""
    logits = noise(len(requests), VOCABULARY) * 3
    before, tables = logits.clone(), []
    for params, prompt, answer in requests:
        tables.append(TokenTable(params.over(DEFAULTS), prompt, len(answer)))
        for token in answer:
            tables[-1].saw(token)
    expected = [plainly_adjusted(one, *request) for one, request in zip(logits.tolist(), requests, strict=True)]
    assert torch.allclose(adjusted(logits, tables), torch.tensor(expected), atol=1e-4, rtol=1e-4)
    assert torch.equal(logits, before)


def test_a_request_without_penalties_keeps_no_table() -> None:
    plain = row(tuple(range(100)))
    plain.saw(3)
    assert len(plain.table) == 0


@pytest.mark.parametrize("method", ["multiplicative", "subtractive"])
def test_repetition_penalty_lowers_negative_logits_too(method: str) -> None:
    logits = torch.tensor([[-2.0, 2.0, 1.0, -2.0]])
    found = adjusted(logits, [row((0, 1, 1), repetition_penalty=1.5, repetition_penalty_method=method).table])
    lowered = [-3.0, 2 / 1.5] if method == "multiplicative" else [-3.5, 0.5]
    assert found.tolist() == [[*map(pytest.approx, lowered), 1.0, -2.0]]


def test_repetition_penalty_counts_the_answer() -> None:
    one = row((0,), temperature=0.0, repetition_penalty=10.0)
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    (first,) = sample(logits, [one])
    assert first == 1
    one.saw(first)
    assert sample(logits, [one]) == [2]


@pytest.mark.parametrize("params", [{"top_p": 0.9}, {"top_p": 0.9, "top_k": 70}, {"top_p": 1.0}], ids=str)
def test_a_seed_repeats_whatever_the_batch(params: dict[str, Any]) -> None:
    """Logits in coarse steps, so that many are equal and their order could depend on who else is there."""
    logits = noise(6, 20_000, seed=1).mul(2).round()
    others = [{"top_p": 1.0}, {"top_p": 1.0, "top_k": 500}, {"temperature": 0.0}, {"top_p": 0.99}, {"min_p": 0.1}]

    def answer(count: int) -> list[int | None]:
        mine = row(seed=42, **{"temperature": 1.0, **params})
        rows = [mine, *(row(**{"temperature": 1.5, **other}) for other in others[:count])]
        return [sample(logits[: count + 1], rows)[0] for _ in range(30)]

    alone = answer(0)
    assert len(set(alone)) > 5
    assert answer(1) == answer(2) == answer(5) == alone


def test_without_a_seed_answers_differ() -> None:
    logits = torch.zeros(1, 1000)
    assert len({sample(logits, [row(temperature=1.0, top_p=1.0)])[0] for _ in range(20)}) > 10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_row_fails_alone(bad: float) -> None:
    logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, bad, 0.0], [0.0, 0.0, 5.0]])
    for params in ({"temperature": 0.0}, {"temperature": 0.1, "top_p": 0.9}, {"temperature": 0.1, "top_p": 1.0}):
        assert sample(logits, [row(**params) for _ in range(3)]) == [1, None, 2]
    assert sample(torch.full((1, 3), float("-inf")), [row()]) == [None]


def test_a_row_may_rule_tokens_out() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")]])
    assert {sample(logits, [row(temperature=1.0, top_p=p)])[0] for p in (0.5, 1.0) for _ in range(20)} == {1}


def test_a_bias_chooses_or_rules_out() -> None:
    logits = torch.tensor([[4.0, 3.0, 2.0]])
    assert sample(logits, [row(temperature=0.0, logit_bias={2: 100.0})]) == [2]
    assert sample(logits, [row(temperature=0.0, logit_bias={0: -100.0})]) == [1]


def test_tokens_beyond_a_narrower_head_concern_nobody() -> None:
    """Biases on them, and penalties for those in a prompt, as of a model with more embeddings than logits."""
    logits = torch.tensor([[4.0, 3.0, 2.0]]).repeat(3, 1)
    rows = [
        row(temperature=0.0, logit_bias={2: 100.0, 3: 100.0}),
        row((0, 7), temperature=0.0, repetition_penalty=10.0),
        row((5,), temperature=0.0, presence_penalty=2.0, logit_bias={99: 1.0}),
    ]
    assert sample(logits, rows) == [2, 1, 0]


@pytest.mark.parametrize(
    "params",
    [
        {"repetition_penalty": 0.01},
        {"repetition_penalty": 10.0},
        {"repetition_penalty": 0.01, "repetition_penalty_method": "subtractive"},
        {"presence_penalty": -2.0, "frequency_penalty": -2.0},
        {"logit_bias": dict.fromkeys(range(100), 100.0)},
        {"logit_bias": dict.fromkeys(range(100), -100.0)},
    ],
    ids=str,
)
@pytest.mark.parametrize("logit", [1e-30, 1e4])
def test_parameters_at_the_ends_of_their_ranges_choose_a_token(params: dict[str, Any], logit: float) -> None:
    for temperature in (0.0, 1e-4, 5.0):
        one = row(tuple(range(100)), temperature=temperature, **params)
        for _ in range(3):
            (token,) = sample(noise(1, 100) * logit, [one])
            assert token is not None
            one.saw(token)


@pytest.mark.parametrize("temperature", [5.0, 1e-3, 1e-45])
def test_any_temperature(temperature: float) -> None:
    rows = [row(temperature=temperature, seed=seed, top_p=1.0 - seed % 2 / 10) for seed in range(20)]
    assert None not in sample(noise(20, 100), rows)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [
        ("temperature", 5.1, "<= 5"),
        ("temperature", -0.1, ">= 0"),
        ("top_k", -1, ">= 0"),
        ("top_p", 0.0, "> 0"),
        ("min_p", 1.1, "<= 1"),
        ("repetition_penalty", 0.0, ">= 0.01"),
        ("repetition_penalty", 1e-300, ">= 0.01"),
        ("temperature", float("nan"), ">= 0"),
        ("logit_bias", {3: float("nan")}, ">= -100"),
        ("repetition_penalty_method", "divide", "divide"),
        ("presence_penalty", -2.1, ">= -2"),
        ("frequency_penalty", 2.1, "<= 2"),
        ("logit_bias", {3: 101.0}, "<= 100"),
        ("logit_bias", {-1: 1.0}, ">= 0"),
        ("logit_bias", dict.fromkeys(range(301), 1.0), "<= 300"),
        ("seed", -1, ">= 0"),
        ("stop", ("",), ">= 1"),
        ("max_new_tokens", 0, ">= 1"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name: str, value: Any, limit: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"{limit}.*{name}"):
        SamplingParams(**{name: value}).validated()
