"""Fuses the rotary embeddings of queries and keys: one call each, then one for both."""

from __future__ import annotations

import operator

import torch
from torch import fx

from llm.engine.program import operations
from llm.engine.program.graphs import Node, arguments, aten, calls, factors, is_call, put, replace, same, size, tensor

END = torch.iinfo(torch.int64).max


def fuse_rotary(graph: fx.Graph) -> None:
    """Fuse x * cos + cat(-x2, x1) * sin, where x1 and x2 are the halves of x."""
    for node in calls(graph, aten.add.Tensor):
        found = factors(node, lambda one: is_call(one, aten.mul.Tensor) and is_call(one.args[0], aten.cat.default))
        if found is None:
            continue
        turned, straight = found
        x = _turned(turned.args[0])
        if x is None or not is_call(straight, aten.mul.Tensor) or straight.args[0] is not x or not same(node, x):
            continue
        cos, sin = straight.args[1], turned.args[1]
        signed = put(node, operations.signed, sin, like=sin)
        half = tensor(x).shape[-1] // 2
        replace(node, put(node, operations.rotate, x, cos, signed, half, like=node))


def _turned(value: Node) -> Node | None:
    """Return x of cat(-x2, x1)."""
    parts, dim = arguments(value, None, 0)
    if len(parts) != 2 or dim not in (-1, tensor(value).dim() - 1) or not is_call(parts[0], aten.neg.default):
        return None
    second, first = parts[0].args[0], parts[1]
    if not is_call(second, aten.slice.Tensor) or not is_call(first, aten.slice.Tensor):
        return None
    x, last = first.args[0], tensor(first).dim() - 1
    half = tensor(x).shape[-1] // 2
    if first.args[1:] != (last, 0, half) or second.args != (x, last, half, END):
        return None
    return x


def rotate_at_once(graph: fx.Graph) -> None:
    """Join the rotations of queries and keys that lie side by side in the result of one product."""
    for node in calls(graph, operations.attend):
        query, key = node.args[1:3]
        if not is_call(query, operations.rotate) or not is_call(key, operations.rotate):
            continue
        if query.args[1:] != key.args[1:] or len(query.users) != 1 or len(key.users) != 1:
            continue
        if (both := _side_by_side(query.args[0], key.args[0])) is not None:
            turned = put(query, operations.rotate, both, *query.args[1:], like=both)
            heads = [size(query, 2), size(key, 2)]
            cut = put(query, aten.split_with_sizes.default, turned, heads, 2)
            for i, each in enumerate((query, key)):
                replace(each, put(each, operator.getitem, cut, i, like=each))


def _side_by_side(one: Node, other: Node) -> Node | None:
    """Join two views `[1, tokens, heads, width]` of parts of one product that follow each other, if they are that."""
    if not is_call(one, aten.view.default) or not is_call(other, aten.view.default):
        return None
    first, second = one.args[0], other.args[0]
    if not is_call(first, operator.getitem) or not is_call(second, operator.getitem):
        return None
    cut, at = first.args
    if second.args != (cut, at + 1) or not is_call(cut, aten.split_with_sizes.default):
        return None
    (batch, tokens, _, width), form = one.args[1], other.args[1]
    if [*form[:2], *form[3:]] != [batch, tokens, width]:
        return None
    whole, sizes, dim = cut.args
    joined = put(first, aten.narrow.default, whole, dim, sum(sizes[:at]), sizes[at] + sizes[at + 1])
    heads = tensor(one).shape[2] + tensor(other).shape[2]
    viewed = tensor(one).new_empty((*tensor(one).shape[:2], heads, tensor(one).shape[3]))
    return put(first, aten.view.default, joined, [batch, tokens, -1, width], value=viewed)
