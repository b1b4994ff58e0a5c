"""Decides where results are written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from llm.engine.program import operations
from llm.engine.program.graphs import Node, aten, calls, is_call, put, replace, same

FRESH = (
    operations.apply, operations.rotate, operations.normed, aten.add.Tensor, aten.mul.Tensor,
    aten.silu.default, aten.gelu.default, aten.relu.default, aten.rms_norm.default, aten.tanh.default,
)  # fmt: skip
"""Operators whose result is memory of its own."""
IN_PLACE = {aten.add.Tensor: aten.add_.Tensor, aten.mul.Tensor: aten.mul_.Tensor}


def write_in_place(graph: fx.Graph) -> None:
    """Write sums and products into the memory of an operand that nobody needs any more."""
    for node in calls(graph, *IN_PLACE):
        target: Callable[..., Any] = IN_PLACE[node.target]
        one, other = node.args
        if node.kwargs or not isinstance(one, fx.Node):
            continue
        if _spare(one, node):
            replace(node, put(node, target, one, other, like=node))
        elif isinstance(other, fx.Node) and _spare(other, node):
            replace(node, put(node, target, other, one, like=node))


def _spare(operand: Node, node: Node) -> bool:
    return is_call(operand, *FRESH, *IN_PLACE.values()) and len(operand.users) == 1 and same(operand, node)
