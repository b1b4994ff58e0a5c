"""Fuses an RMS norm into one call, then into a quicker one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from llm.engine.program import operations
from llm.engine.program.graphs import Node, aten, calls, factors, fixed, is_call, put, replace, size, sole_user, tensor


def fuse_rms_norm(graph: fx.Graph) -> None:
    """Fuse x * rsqrt(mean(x ** 2) + eps), and the weight behind it if that is one for each number."""
    for root in calls(graph, aten.rsqrt.default, aten.pow.Tensor_Scalar):
        matched = _mean_square(root.args[0])
        if matched is None or (root.target is aten.pow.Tensor_Scalar and root.args[1] != -0.5):
            continue
        x, eps = matched
        for scaled in list(root.users):
            if is_call(scaled, aten.mul.Tensor) and scaled.args in ((x, root), (root, x)):
                replace(scaled, put(scaled, aten.rms_norm.default, x, [size(x, -1)], None, eps, like=scaled))
    graph.eliminate_dead_code()
    _fold_norm_weights(graph)


def _mean_square(value: Any) -> tuple[Node, float] | None:
    """Return x and eps of mean(x ** 2) + eps."""
    if not is_call(value, aten.add.Tensor) or not isinstance(value.args[1], float):
        return None
    mean = value.args[0]
    if not is_call(mean, aten.mean.dim) or mean.args[1:] != ([-1], True):
        return None
    power = mean.args[0]
    if not is_call(power, aten.pow.Tensor_Scalar) or power.args[1] != 2 or size(power, -1) is None:
        return None
    return power.args[0], value.args[1]


def _fold_norm_weights(graph: fx.Graph) -> None:
    constants = fixed(graph)
    for norm in calls(graph, aten.rms_norm.default):
        product = sole_user(norm, aten.mul.Tensor)
        if product is None or norm.args[2] is not None or (found := factors(product, constants.__contains__)) is None:
            continue
        weight = found[0]
        if tensor(weight).shape == tensor(norm).shape[-1:] and tensor(weight).dtype == tensor(norm).dtype:
            x, shape, _, eps = norm.args
            replace(product, put(product, aten.rms_norm.default, x, shape, weight, eps, like=product))


def quicken_rms_norm(graph: fx.Graph) -> None:
    """Use `operations.normed` if the numbers are as wide as its sums need them."""
    constants = fixed(graph)
    for norm in calls(graph, aten.rms_norm.default):
        x, (width,), weight, eps = norm.args
        if tensor(x).dtype != torch.float32 or not (weight is None or weight in constants):
            continue
        root = math.sqrt(width)
        scale = root if weight is None else put(norm, aten.mul.Tensor, weight, root, like=weight)
        kind = {"dtype": torch.float32, "device": tensor(x).device}
        floor = put(norm, aten.scalar_tensor.default, math.sqrt(eps) * root, **kind)
        replace(norm, put(norm, operations.normed, x, scale, floor, like=norm))
