"""The ways to compute a layer, and to attend, are ranked by the time that they take here."""

from __future__ import annotations

import pytest
import torch

from llm.engine.attention.kernels import WAYS
from llm.engine.layout import Decode, LayerShape, Layout
from llm.engine.linear import products, timing
from llm.engine.linear.layer import Linear, Product, plain

LAYOUT = Layout((LayerShape(2, 8, 8),) * 2, torch.float32, torch.device("cpu"))


def linears() -> list[Linear]:
    """Two shapes, in turns."""
    return [Linear((str(i),), torch.randn(8 if i % 2 else 16, 32), None) for i in range(2 * timing.LAYERS + 6)]


def test_every_way_that_works_has_its_rank_for_each_shape() -> None:
    found = timing.fastest_first(linears())
    assert set(found) == {(8, 32), (16, 32)}
    for shape, ways in found.items():
        assert sorted(way.name for way in ways) == sorted(way.name for way in products.ways(shape))


def test_exact_ones_alone() -> None:
    for ways in timing.fastest_first(linears(), exact=True).values():
        assert {way.name for way in ways} <= {"float32", "float32 prepacked"}


def test_first_is_what_is_fastest_in_proportion_whatever_the_rows() -> None:
    few, many = products.way("bfloat16"), products.way("float32")
    assert timing.ranked([few, many], [(3.0, 9.0, 9.0), (1.0, 11.0, 11.0)]) == [many, few]


def test_layers_are_timed_one_after_the_other() -> None:
    """As in a step: a weight that is used again at once would still lie in a cache."""
    order: list[str] = []

    def make(linear: Linear, _: object) -> Product:
        inside = plain(linear)

        def product(x: torch.Tensor) -> torch.Tensor:
            order.append(linear.names[0])
            return inside(x)

        return product

    found = timing.cost(products.Way("spied on", make), linears()[:6])
    assert order == [str(i) for i in range(6)] * timing.REPEATS * len(timing.ROWS)
    assert {shape: len(seconds) for shape, seconds in found.items()} == {(8, 32): 3, (16, 32): 3}


def test_rows_in_decode_attend_as_is_fastest_for_each_kind_of_context(monkeypatch: pytest.MonkeyPatch) -> None:
    few, short, long = timing.CONTEXTS
    seconds = {
        (few, "products"): 3.0, (few, "fused"): 2.0, (few, "fused by head"): 0.25,
        (short, "products"): 1.0, (short, "fused"): 0.5, (short, "fused by head"): 0.7,
        (long, "products"): 4.0, (long, "fused"): 5.0, (long, "fused by head"): 6.0,
    }  # fmt: skip

    def attending(layout: Layout, *context: int) -> float:
        (way,) = set(layout.decode)
        return seconds[context, way]

    monkeypatch.setattr(timing, "_attending", attending)
    assert timing.decoding(LAYOUT) == (Decode("fused by head", "fused", "products"), 4.75)


def test_rows_in_decode_are_timed_in_any_numbers_and_way() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for way in WAYS:
            assert timing._attending(LAYOUT._replace(dtype=dtype, decode=Decode(way, way, way)), 2, 64) > 0
