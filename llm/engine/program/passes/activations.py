"""Fuses activation functions that are written out."""

from __future__ import annotations

from typing import Any

from torch import fx

from llm.engine.program.graphs import Node, aten, calls, factors, is_call, put, replace, sole_user


def fuse_gelu(graph: fx.Graph) -> None:
    """Fuse x * 0.5 * (1 + tanh(0.797 * (x + 0.0447 * x ** 3)))."""
    for root in calls(graph, aten.tanh.default):
        one = sole_user(root, aten.add.Tensor)
        product = one and sole_user(one, aten.mul.Tensor)
        if not one or not product or one.args[1] != 1.0 or (x := _gelu_input(root.args[0])) is None:
            continue
        half = product.args[1] if product.args[0] is one else product.args[0]
        if is_call(half, aten.mul.Tensor) and half.args == (x, 0.5):
            replace(product, put(product, aten.gelu.default, x, like=product, approximate="tanh"))


def _gelu_input(value: Any) -> Node | None:
    """Return x of 0.797 * (x + 0.0447 * x ** 3)."""
    if not is_call(value, aten.mul.Tensor) or not _near(value.args[1], 0.7978845608):
        return None
    inner = value.args[0]
    found = factors(inner, lambda one: is_call(one, aten.mul.Tensor) and _near(one.args[1], 0.044715))
    if found is None or not is_call(inner, aten.add.Tensor):
        return None
    cubed, x = found[0].args[0], found[1]
    return x if is_call(cubed, aten.pow.Tensor_Scalar) and cubed.args == (x, 3.0) else None


def _near(value: Any, number: float) -> bool:
    return isinstance(value, float) and abs(value - number) < 1e-6
