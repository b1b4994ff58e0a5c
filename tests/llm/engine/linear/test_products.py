"""Each way to compute a linear layer is near the exact one, and a row is the same whatever it is computed with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from llm.engine.linear import int8, products
from llm.engine.linear.layer import Linear, plain

WORKING = [way.name for way in products.ways((48, 64))]
WHOLE = [name for name in WORKING if name.startswith("int8")]
COARSE = [name for name in WHOLE if not name.endswith("twice")]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def linear(out: int = 48, width: int = 64, *, bias: bool = True) -> Linear:
    generator = torch.Generator().manual_seed(out + width)
    weight = torch.randn(out, width, generator=generator)
    return Linear(("one",), weight, torch.randn(out, generator=generator) if bias else None)


def wild(rows: int, width: int, seed: int) -> Tensor:
    """Rows of very different size, some with one number far above the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=generator)
    x *= 10.0 ** torch.randint(-6, 6, (rows, 1), generator=generator)
    x[::3, 0] *= 1e4
    return x


def off(name: str, one: Linear, x: Tensor, factors: Tensor | None = None) -> float:
    exact = plain(one)(x)
    found = products.way(name).make(one, factors)(x)
    assert found.shape == exact.shape
    assert found.dtype == exact.dtype
    return float((found - exact).norm() / exact.norm())


def test_some_int8_works_on_a_cpu() -> None:
    assert COARSE


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize("shape", [(48, 64), (33, 100), (7, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_is_near_the_exact_product(name: str, shape: tuple[int, int], bias: bool) -> None:
    x = torch.randn(1, 5, shape[1], generator=torch.Generator().manual_seed(0))
    assert off(name, linear(*shape, bias=bias), x) < 0.02


@pytest.mark.parametrize("name", COARSE)
def test_twice_has_the_rounding_of_the_weight_alone(name: str) -> None:
    one, x = linear(bias=False), torch.randn(1, 200, 64, generator=torch.Generator().manual_seed(0))
    rounded = int8.rounded(one.weight, int(name.split()[2]))
    exact = x @ (rounded.whole * rounded.scales).T
    found = products.way(f"{name} twice").make(one, None)(x)
    assert torch.allclose(found, exact, rtol=0, atol=float(exact.abs().max()) * 1e-4)
    assert off(f"{name} twice", one, x) < 0.9 * off(name, one, x)


@pytest.mark.parametrize("name", COARSE)
def test_smoothing_helps_where_a_column_is_much_larger(name: str) -> None:
    one, x = linear(), torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0))
    x[..., 3] *= 100
    factors = torch.ones(64)
    factors[3] = 30
    one.weight[:, 3] *= 0.01
    assert off(name, one, x, factors) < 0.5 * off(name, one, x)


@pytest.mark.parametrize("name", WHOLE)
@settings(deadline=None)
@given(rows=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_row_is_the_same_alone_and_in_any_batch(name: str, rows: int, seed: int) -> None:
    with torch.inference_mode():
        product = products.way(name).make(linear(), None)
        x = wild(rows, 64, seed)
        together = product(x[None])[0]
        for row in range(rows):
            assert torch.equal(product(x[None, row : row + 1])[0, 0], together[row])


@pytest.mark.parametrize("name", WORKING)
def test_what_is_no_number_stays_in_its_row(name: str) -> None:
    x = torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(0))
    x[0, 1, 5], x[0, 2, 6], x[0, 3] = float("nan"), float("inf"), 0.0
    one = linear()
    found = products.way(name).make(one, None)(x)
    assert found[0, 1].isnan().all()
    assert not found[0, 2].isfinite().any()
    assert found[0, 0].isfinite().all()
    assert torch.allclose(found[0, 3], one.bias, atol=0.02)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", WORKING)
def test_the_input_is_left_as_it_was(name: str) -> None:
    x = torch.randn(1, 4, 64)
    before = x.clone()
    products.way(name).make(linear(), torch.full((64,), 2.0))(x)
    assert torch.equal(x, before)


def saturating(matrix: int8.Matrix) -> int8.Core:
    """As on a CPU without the instructions: pairs are summed in 16 bits."""

    def core(rows: Tensor) -> Tensor:
        whole = (rows * int8.LEVELS).round() + int8.LEVELS
        pairs = (whole[:, None] * matrix.whole[None]).unflatten(-1, (-1, 2)).sum(-1).clamp(-(2**15), 2**15 - 1)
        shifted = pairs.sum(-1) - int8.LEVELS * matrix.whole.sum(-1)
        return shifted / int8.LEVELS * matrix.scales[:, 0]

    return core


def scaled_over_all(matrix: int8.Matrix) -> int8.Core:
    """As `quantized.linear_dynamic` does it: one scale for the whole batch."""

    def core(rows: Tensor) -> Tensor:
        step = (rows.max() - rows.min()) / 255
        return (rows / step).round() * step @ (matrix.whole * matrix.scales).T

    return core


def absent(matrix: int8.Matrix) -> int8.Core:
    raise RuntimeError("no such engine")


def test_weights_have_fewer_levels_where_sums_overflow() -> None:
    assert int8.levels(saturating, (16, 64)) == 63


@pytest.mark.parametrize("core", [scaled_over_all, absent])
def test_a_core_that_mixes_rows_or_is_not_there_is_not_used(core: object) -> None:
    assert int8.levels(core, (16, 64)) is None  # type: ignore[arg-type]
