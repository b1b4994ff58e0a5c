"""Defines a linear layer as the step program has it, and the product that computes it.

A product is made for one linear layer from its numbers; how it multiplies, and in which numbers, is its own affair. The
module knows neither the model nor the program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""`[..., in]` -> `[..., out]`, in the dtype of its input; rows do not see each other. The input is not changed."""


class Linear(NamedTuple):
    """One product of the program: of one linear layer of the model, or of several that read the same input."""

    names: tuple[str, ...]
    """Names of the layers in the model ("model.layers.0.self_attn.q_proj"), in the order of their outputs."""
    weight: Tensor
    """`[out, in]`"""
    bias: Tensor | None
    """`[out]`"""


Choose = Callable[[Linear], Product]


def plain(linear: Linear) -> Product:
    """Return a product in the model's own numbers."""
    _, weight, bias = linear

    def product(x: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    return product
