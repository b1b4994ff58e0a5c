"""Has the ways in which a linear layer can be computed on a CPU.

`quantize` decides which of them is right for a layer, `timing` measures which is fast. Nothing here knows one CPU from
another by its name: what works is found by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from llm.engine.linear import int8
from llm.engine.linear.layer import Linear, Product, plain

TRIED_OUTPUTS = 1024
"""The most outputs of a layer on which a way is tried; what goes wrong, goes wrong by the width of its input."""


class Way(NamedTuple):
    """One way to compute any linear layer of a shape. `make` also takes factors `[in]` that smooth the input, or None.

    An `exact` one has all digits of float32. Smoothing divides the input's column i by factor i and multiplies the
    weight's by it: if a few columns are much larger than the others, the others keep more of their steps (SmoothQuant,
    https://arxiv.org/abs/2211.10438).
    """

    name: str
    make: Callable[[Linear, Tensor | None], Product]
    smooths: bool = False
    exact: bool = False


def ways(shape: Sequence[int]) -> list[Way]:
    """Return the ways that work here for a weight of this shape."""
    names = [name for name in FLOATS if _works(way(name), shape)]
    for name, make in int8.CORES.items():
        levels = int8.levels(make, (min(shape[0], TRIED_OUTPUTS), shape[1]))
        if levels is not None:
            names += [f"int8 {name} {levels}", f"int8 {name} {levels} twice"]
    return [way(name) for name in names]


def way(name: str) -> Way:
    """Return the way of that name, whether it works here or not. Raises KeyError, ValueError."""
    if name in FLOATS:
        product = FLOATS[name]
        return Way(name, lambda linear, _: product(linear), exact=name.startswith("float32"))
    _, core, levels, *more = name.split()
    return Way(name, _int8(int8.CORES[core], int(levels), twice if more else coarse), smooths=True)


def _int8(
    make: Callable[[int8.Matrix], int8.Core],
    levels: int,
    product: Callable[[int8.Core, Tensor | None, Tensor | None], Product],
) -> Callable[[Linear, Tensor | None], Product]:
    def made(linear: Linear, factors: Tensor | None) -> Product:
        weight = linear.weight if factors is None else linear.weight * factors
        core = make(int8.rounded(weight, levels))
        return product(core, linear.bias, None if factors is None else factors.reciprocal())

    return made


def prepacked(linear: Linear) -> Product:
    """Return a product by oneDNN, the weight in the order of reading: in a third to half of a plain one's time."""
    weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.contiguous(), None)
    bias = None if linear.bias is None else linear.bias.contiguous()
    multiply = torch.ops.mkldnn._linear_pointwise

    def product(x: Tensor) -> Tensor:
        out: Tensor = multiply(x, weight, bias, "none", [], "")
        return out

    return product


def bfloat16(linear: Linear) -> Product:
    """Return a prepacked product with 8 bits of precision, summed in float32 inside."""
    names, weight, bias = linear
    inside = prepacked(Linear(names, weight.bfloat16(), None if bias is None else bias.bfloat16()))

    def product(x: Tensor) -> Tensor:
        return inside(x.bfloat16()).to(x.dtype)

    return product


FLOATS: dict[str, Callable[[Linear], Product]] = {
    "float32": plain,
    "float32 prepacked": prepacked,
    "bfloat16": bfloat16,
}


def _works(way: Way, shape: Sequence[int]) -> bool:
    """Return whether a way computes this shape: not every build of torch has oneDNN, and not for every processor."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(min(shape[0], TRIED_OUTPUTS), shape[1], generator=generator)
    linear, x = Linear((), weight, weight[:, 0]), torch.randn(1, 3, shape[1], generator=generator)
    exact = plain(linear)(x)
    try:
        found = way.make(linear, None)(x)
    except (RuntimeError, AttributeError):
        return False
    return bool((found - exact).norm() <= (1e-4 if way.exact else 0.02) * exact.norm())


def coarse(core: int8.Core, bias: Tensor | None, smooth: Tensor | None) -> Product:
    """Return a product that divides each row by its own largest number, so that it is the same in whatever batch."""

    def product(x: Tensor) -> Tensor:
        if smooth is not None:
            x = x * smooth
        largest = _largest(x)
        out = core(x / largest).mul_(largest)
        return out if bias is None else out.add_(bias)

    return product


def twice(core: int8.Core, bias: Tensor | None, smooth: Tensor | None) -> Product:
    """Return such a product with 16 bits for the input: what rounding leaves goes through the core as further rows."""

    def product(x: Tensor) -> Tensor:
        if smooth is not None:
            x = x * smooth
        largest = _largest(x)
        x = x / largest
        high = (x * int8.LEVELS).round_().div_(int8.LEVELS)
        low = x.sub_(high).mul_(2 * int8.LEVELS)
        first, second = core(torch.stack((high, low))).unbind()
        out = torch.add(first, second, alpha=1 / (2 * int8.LEVELS)).mul_(largest)
        return out if bias is None else out.add_(bias)

    return product


def _largest(x: Tensor) -> Tensor:
    """Return the largest number of each row, `[..., 1]`, never 0; of a row with NaN that is NaN, in the product too."""
    return x.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
