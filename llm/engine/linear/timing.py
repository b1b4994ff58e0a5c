"""Measures how long the parts of a step take on this machine, in one way or another.

All are timed as in a step, one layer after the other: weights, keys and values come from memory then, all else is warm.
(Alone, between two sweeps over all of the cache, every product takes 200 microseconds longer, and slow ones seem good.)
"""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

import torch

from llm.engine.attention.kernels import WAYS, Kind
from llm.engine.attention.packed import PoolRows
from llm.engine.kvcache import KVCache
from llm.engine.layout import Decode, Layout
from llm.engine.linear.layer import Linear, Product
from llm.engine.linear.products import Way, ways

ROWS = (1, 16, 32)
"""Rows of the steps that are timed."""
REPEATS = 5
"""Times that each is measured. The shortest counts: whatever else the machine does makes it longer."""
LAYERS = 16
"""Layers of each shape, and of attention, that are timed: together they exceed a cache, if a model is large enough."""
CONTEXTS = ((1, 128), (16, 128), (16, 640))
"""Rows and their length that stand for few tokens in decode, short rows and long ones."""
GROUP = 3
"""Queries to a key head."""


@torch.inference_mode()
def fastest_first(linears: Sequence[Linear], *, exact: bool = False) -> dict[torch.Size, list[Way]]:
    """Return the ways that work, for each shape, by their time; `exact` ones alone, or all."""
    sample = _sample(linears)
    shapes = dict.fromkeys(linear.weight.shape for linear in sample)
    usable = {shape: {way.name: way for way in ways(shape) if way.exact or not exact} for shape in shapes}
    costs = defaultdict[torch.Size, dict[str, tuple[float, ...]]](dict)
    for name, way in {name: way for named in usable.values() for name, way in named.items()}.items():
        for shape, seconds in cost(way, [each for each in sample if name in usable[each.weight.shape]]).items():
            costs[shape][name] = seconds
    return {shape: ranked(list(ways.values()), [costs[shape][name] for name in ways]) for shape, ways in usable.items()}


def ranked(ways: Sequence[Way], costs: Sequence[tuple[float, ...]]) -> list[Way]:
    """Return the ways by their costs, each number of ROWS counting alike."""
    best = [min(column) for column in zip(*costs, strict=True)]
    slowness = [sum(mine / least for mine, least in zip(row, best, strict=True)) for row in costs]
    return [way for _, way in sorted(zip(slowness, ways, strict=True), key=lambda pair: pair[0])]


def cost(way: Way, linears: Sequence[Linear]) -> dict[torch.Size, tuple[float, ...]]:
    """Return the seconds that a product of each shape takes, for each number of ROWS."""
    products = [(linear.weight.shape, way.make(linear, None)) for linear in linears]
    found = [_seconds(products, rows) for rows in ROWS]
    return {shape: tuple(seconds[shape] for seconds in found) for shape in found[0]}


def _seconds(products: Sequence[tuple[torch.Size, Product]], rows: int) -> dict[torch.Size, float]:
    inputs = {shape: torch.ones(1, rows, shape[1]) for shape, _ in products}
    shortest = [math.inf] * len(products)
    for _ in range(REPEATS):
        for i, (shape, product) in enumerate(products):
            began = time.perf_counter()
            product(inputs[shape])
            shortest[i] = min(shortest[i], time.perf_counter() - began)
    by_shape = defaultdict[torch.Size, list[float]](list)
    for (shape, _), seconds in zip(products, shortest, strict=True):
        by_shape[shape].append(seconds)
    return {shape: statistics.mean(each) for shape, each in by_shape.items()}


def _sample(linears: Sequence[Linear]) -> list[Linear]:
    """Return the first LAYERS of each shape, in the order of a step."""
    seen = Counter[torch.Size]()
    sample = []
    for linear in linears:
        seen[linear.weight.shape] += 1
        if seen[linear.weight.shape] <= LAYERS:
            sample.append(linear)
    return sample


@torch.inference_mode()
def decoding(layout: Layout) -> tuple[Decode, float]:
    """Return how rows in decode attend the fastest, and the seconds of a layer; long rows count for more."""
    part = layout._replace(layers=layout.layers[:LAYERS])
    best = []
    for context in CONTEXTS:
        costs = {way: _attending(part._replace(decode=Decode(way, way, way)), *context) for way in WAYS}
        best.append(min(costs.items(), key=lambda cost: cost[1]))
    ways, seconds = zip(*best, strict=True)
    return Decode(*ways), sum(seconds)


def _attending(layout: Layout, rows: int, tokens: int) -> float:
    cache = KVCache(layout, rows * tokens)
    for slot in [cache.open(tokens - 1) for _ in range(rows)]:
        slot.length = tokens - 1
        cache.settle(slot)
    (pool,) = cache.pools
    shortest = [math.inf] * len(layout.layers)
    for _ in range(REPEATS):
        part = PoolRows(pool)
        for layer, (heads, key_width, value_width) in enumerate(layout.layers):
            query, key = torch.ones(1, rows, heads * GROUP, key_width), torch.ones(1, rows, heads, key_width)
            began = time.perf_counter()
            part.attend(layer, query, key, torch.ones(1, rows, heads, value_width), Kind(None))
            shortest[layer] = min(shortest[layer], time.perf_counter() - began)
    return statistics.mean(shortest)
