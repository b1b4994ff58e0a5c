"""Drops calls that need not be."""

from __future__ import annotations

from typing import Any

from torch import fx

from llm.engine.program.capture import OPAQUE
from llm.engine.program.graphs import Node, arguments, aten, calls, is_call, replace, same, size, tensor

CHECKS = ("_assert", "_guards", "sym_constrain_range")
SAME = (
    aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten.type_as.default, aten._to_copy.default,
    aten.dropout.default, aten.alias.default, aten.slice.Tensor,
)  # fmt: skip
"""Operators that return what they are given, wherever they leave shape and dtype as they were."""


def drop_checks(graph: fx.Graph) -> None:
    """Drop what the export asserts about its inputs."""
    for node in reversed(list(graph.nodes)):
        if not node.users and any(check in str(node.target) for check in CHECKS):
            graph.erase_node(node)


def drop_noops(graph: fx.Graph) -> None:
    """Drop casts to the present type, dropout (nothing is trained), and other names for the same."""
    for node in calls(graph, aten.cat.default):
        parts, dim = arguments(node, None, 0)
        node.args = ([part for part in parts if size(part, dim) != 0], dim)
    for node in calls(graph, *SAME, aten.cat.default):
        before = node.args[0][0] if is_call(node, aten.cat.default) else node.args[0]
        if same(node, before) and tensor(node).device == tensor(before).device:
            replace(node, before)


def share_equals(graph: fx.Graph) -> None:
    """Make one of two calls of an operator with the same arguments: each layer makes the same views."""
    seen: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is not OPAQUE:
            key = (node.target, _hashable(node.args), _hashable(node.kwargs))
            if (before := seen.setdefault(key, node)) is not node:
                replace(node, before)


def _hashable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    if isinstance(value, dict):
        return tuple((name, _hashable(each)) for name, each in sorted(value.items()))
    return type(value), value  # 1, 1.0 and True are equal
