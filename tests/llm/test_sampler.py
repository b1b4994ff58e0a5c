"""Sampling: against a plain reference, row by row, whatever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from llm.engine import sampler
from llm.engine.sampler import RowSampling, sample
from llm.sampling import SamplingParams

DRAWS = 4000


def row(prompt: tuple[int, ...] = (0,), **params: float) -> RowSampling:
    return RowSampling(SamplingParams(**params), prompt, max_new_tokens=8)


def reference(logits: Tensor, *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Probabilities of one row, the plain way: sort, cut, normalise."""
    order = logits.argsort(descending=True)
    kept = (logits[order] / temperature).softmax(-1)
    if top_k:
        kept[top_k:] = 0
        kept /= kept.sum()
    count = max(1, int((kept.cumsum(-1) - kept < top_p).sum()))
    kept[count:] = 0
    return torch.zeros_like(logits).scatter(0, order, kept / kept.sum())


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 1.0, "top_p": 1.0},
        {"temperature": 0.5, "top_p": 1.0},
        {"temperature": 1.5, "top_p": 0.6},
        {"temperature": 1.0, "top_p": 1.0, "top_k": 3},
        {"temperature": 1.0, "top_p": 0.7, "top_k": 4},
        {"temperature": 2.0, "top_p": 0.95, "top_k": 1000},
        {"temperature": 4.0, "top_p": 0.5, "top_k": 3},
    ],
)
def test_distribution(params: dict[str, float]) -> None:
    logits = torch.randn(12, generator=torch.Generator().manual_seed(5)) * 2
    rows = [row(seed=seed, **params) for seed in range(DRAWS)]
    tokens = torch.tensor(sample(logits.expand(DRAWS, -1), rows))
    found = torch.bincount(tokens, minlength=12) / DRAWS
    expected = reference(logits, **params)
    assert not found[expected == 0].any()
    # five standard deviations of a share drawn that often
    assert torch.all((found - expected).abs() <= 5 * (expected * (1 - expected) / DRAWS).sqrt() + 1e-9)


def test_top_p_looks_at_more_tokens_when_it_has_to(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(1, 500, generator=torch.Generator().manual_seed(0)) / 10
    rows = [[row(seed=seed, temperature=1.0, top_p=0.9)] for seed in range(50)]
    few = [sample(logits, r) for r in rows]
    monkeypatch.setattr(sampler, "FIRST_CANDIDATES", 500)
    rows = [[row(seed=seed, temperature=1.0, top_p=0.9)] for seed in range(50)]
    assert few == [sample(logits, r) for r in rows]
    allowed = reference(logits[0], top_p=0.9) > 0
    assert all(allowed[token] for (token,) in few)
    assert len({token for (token,) in few}) > 30


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_top_p_always_keeps_the_most_likely_token(dtype: torch.dtype) -> None:
    logits = torch.tensor([[0.0, 12.0, 0.0, 0.0]], dtype=dtype).repeat(500, 1)
    rows = [row(seed=seed, temperature=1.0, top_p=0.0001) for seed in range(500)]
    assert set(sample(logits, rows)) == {1}


def test_half_precision_is_computed_in_full() -> None:
    logits = torch.randn(1, 5000, generator=torch.Generator().manual_seed(2)).bfloat16()
    for params in ({"temperature": 1.0, "top_p": 0.9}, {"temperature": 1.0, "repetition_penalty": 1.3}):
        for seed in range(100):
            assert sample(logits, [row(seed=seed, **params)]) == sample(logits.float(), [row(seed=seed, **params)])


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


def test_repetition_penalty_lowers_negative_logits_too() -> None:
    logits = torch.tensor([[-2.0, 2.0, 1.0, -2.0]])
    found = sampler.penalised(logits, [row((0, 1, 1), repetition_penalty=1.5)])
    assert found.tolist() == [[-3.0, pytest.approx(2 / 1.5), 1.0, -2.0]]
    assert logits.tolist() == [[-2.0, 2.0, 1.0, -2.0]]


def test_repetition_penalty_counts_the_answer() -> None:
    one = row((0,), temperature=0.0, repetition_penalty=10.0)
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    (first,) = sample(logits, [one])
    assert first == 1
    one.saw(first)
    assert sample(logits, [one]) == [2]


def test_a_seed_repeats_whatever_the_batch() -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(1))

    def answer(others: int) -> list[int | None]:
        mine = row(seed=42, temperature=1.0, top_p=0.9)
        rows = [mine, *(row(temperature=1.0, top_p=1.0, top_k=5 * i) for i in range(others))]
        return [sample(logits[: others + 1], rows)[0] for _ in range(20)]

    alone = answer(0)
    assert len(set(alone)) > 5
    assert answer(3) == alone == answer(5)


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
