"""What stands in a step program that is no operator of torch: put there by the passes, called by the program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def apply(product: Any, x: Tensor) -> Tensor:
    """Where the product of a linear layer is used; written as the call it is."""
    raise NotImplementedError


def product(names: Any, weights: Any, biases: Any) -> Any:
    """Where it is chosen, once, for the layers of these names; given to the program from outside."""
    raise NotImplementedError


def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Any) -> Tensor:
    """Where a layer attends; given to the program with each step.

    query, key, value `[1, tokens, heads, width]`, result `[1, tokens, heads, width]`.
    """
    raise NotImplementedError


def signed(sin: Tensor) -> Tensor:
    """The sines of a rotation whose halves are swapped without changing a sign."""
    return torch.cat((sin[..., : sin.shape[-1] // 2].neg(), sin[..., sin.shape[-1] // 2 :]), -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, half: int) -> Tensor:
    """Rotary embedding of the last dimension, which is twice `half`; `sin` as `signed` makes it."""
    return x.mul(cos).addcmul_(x.roll(half, -1), sin)


def normed(x: Tensor, scale: Tensor | float, floor: Tensor) -> Tensor:
    """RMS norm of the last dimension, of width d, in half the calls: `scale` is the weight times sqrt(d), `floor` is
    sqrt(eps * d); sqrt(sum(x ** 2) + eps * d) is the hypotenuse of the norm and the floor."""
    return x.mul(scale).div_(torch.linalg.vector_norm(x, 2, -1, True).hypot_(floor))
