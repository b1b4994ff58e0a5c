"""Defines the calls in a step program that are no operators of torch; passes put them in, the program calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def apply(product: Any, x: Tensor) -> Tensor:
    """Mark where the product of a linear layer is used; it is written as the call it is."""
    raise NotImplementedError


def product(names: Any, weights: Any, biases: Any) -> Any:
    """Mark where the product for the layers of these names is chosen, once; the program is given it from outside."""
    raise NotImplementedError


def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Any) -> Tensor:
    """Mark where a layer attends; the program is given the function with each step.

    query, key, value `[1, tokens, heads, width]`, result `[1, tokens, heads, width]`.
    """
    raise NotImplementedError


def signed(sin: Tensor) -> Tensor:
    """Return the sines of a rotation whose halves are swapped without changing a sign."""
    return torch.cat((sin[..., : sin.shape[-1] // 2].neg(), sin[..., sin.shape[-1] // 2 :]), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
    """Rotary embedding of the last dimension, which is twice `half`; `sin` as `signed` makes it."""
    return x.mul(cos).addcmul_(x.roll(half, -1), sin)


def normed(x: Tensor, scale: Tensor | float, floor: Tensor) -> Tensor:
    """RMS norm of the last dimension, of width d, in half the calls: `scale` is the weight times sqrt(d), `floor` is
    sqrt(eps * d); sqrt(sum(x ** 2) + eps * d) is the hypotenuse of the norm and the floor."""
    return x.mul(scale).div_(torch.linalg.vector_norm(x, 2, -1, True).hypot_(floor))
