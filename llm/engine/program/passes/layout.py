"""Changes the order in which queries, keys and values lie."""

from __future__ import annotations

from typing import Any

from torch import fx

from llm.engine.attention.kernels import Kind
from llm.engine.program import operations
from llm.engine.program.capture import OPAQUE
from llm.engine.program.graphs import Node, aten, calls, is_call, put, replace, size, tensor


def attend_by_token(graph: fx.Graph) -> None:
    """Let the attention take queries, keys and values token by token, as the linear layers make them."""
    for node in calls(graph, OPAQUE):
        query, key, value, layer, *how = node.args
        kind = put(node, Kind, *how)
        by_token = [_swapped(each, node) for each in (query, key, value)]
        replace(node, put(node, operations.attend, layer, *by_token, kind, like=node))
    for root in calls(graph, aten.transpose.int):  # two swaps are none
        before = root.args[0]
        if root.args[1:] == (1, 2) and is_call(before, aten.transpose.int) and before.args[1:] == (1, 2):
            replace(root, before.args[0])


def _swapped(node: Node, before: Node) -> Node:
    """Swap heads and tokens of `[1, heads, tokens, width]`; calls that concern the width alone come after that."""
    x: Any
    x, *rest = node.args or (None,)
    if is_call(node, operations.rotate) and len(node.users) == 1 and size(rest[0], 1) == size(rest[1], 1) == 1:
        cos, sin, half = rest
        return _again(node, before, _swapped(x, before), _swap(cos, before), _swap(sin, before), half)
    if is_call(node, aten.rms_norm.default) and len(node.users) == 1:
        return _again(node, before, _swapped(x, before), *rest)
    if is_call(node, aten.slice.Tensor) and rest[0] == 3:
        return _again(node, before, _swapped(x, before), *rest)
    if is_call(node, aten.cat.default) and len(node.users) == 1 and rest == [-1]:
        return _again(node, before, [_swapped(part, before) for part in x], -1)
    return _swap(node, before)


def _again(node: Node, before: Node, *args: Any) -> Node:
    return put(before, node.target, *args, value=tensor(node).transpose(1, 2))


def _swap(node: Node, before: Node) -> Node:
    return put(before, aten.transpose.int, node, 1, 2, value=tensor(node).transpose(1, 2))
