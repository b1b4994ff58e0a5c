"""The graph of a model with fewer and larger calls.

Each pass knows one pattern, whatever the architecture, and leaves alone what it does not know: the result computes
the same numbers (up to the order of sums), with or without any of them. They run in the order of `PASSES`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import fx

from llm.engine import operations
from llm.engine.attention import Kind
from llm.engine.capture import OPAQUE
from llm.engine.graphs import (
    Node,
    arguments,
    calls,
    factors,
    fixed,
    is_call,
    put,
    replace,
    same,
    shape,
    size,
    sole_user,
    tensor,
)

aten: Any = torch.ops.aten

CHECKS = ("_assert", "_guards", "sym_constrain_range")
SAME = (
    aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten.to.other, aten.type_as.default, aten._to_copy.default,
    aten.dropout.default, aten.alias.default, aten.slice.Tensor,
)  # fmt: skip
"""What they are given, wherever they leave shape and dtype as they were."""
FRESH = (
    operations.apply, operations.rotate, operations.normed, aten.add.Tensor, aten.mul.Tensor,
    aten.silu.default, aten.gelu.default, aten.relu.default, aten.rms_norm.default, aten.tanh.default,
)  # fmt: skip
"""Whose result is memory of its own."""
IN_PLACE = {aten.add.Tensor: aten.add_.Tensor, aten.mul.Tensor: aten.mul_.Tensor}
END = torch.iinfo(torch.int64).max


def simplify(graph: fx.Graph) -> None:
    for simplified in PASSES:
        simplified(graph)
        graph.eliminate_dead_code()


def drop_checks(graph: fx.Graph) -> None:
    """What the export asserts about its inputs."""
    for node in reversed(list(graph.nodes)):
        if not node.users and any(check in str(node.target) for check in CHECKS):
            graph.erase_node(node)


def drop_noops(graph: fx.Graph) -> None:
    """Casts to what it is already, dropout where nothing is trained, other names for the same."""
    for node in calls(graph, aten.cat.default):
        parts, dim = arguments(node, None, 0)
        node.args = ([part for part in parts if size(part, dim) != 0], dim)
    for node in calls(graph, *SAME, aten.cat.default):
        before = node.args[0][0] if is_call(node, aten.cat.default) else node.args[0]
        if same(node, before) and tensor(node).device == tensor(before).device:
            replace(node, before)


def share_equals(graph: fx.Graph) -> None:
    """Two calls of one operator with the same arguments are one: each layer makes the same views."""
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


def fuse_rms_norm(graph: fx.Graph) -> None:
    """x * rsqrt(mean(x ** 2) + eps), and the weight behind it where that is one for each number."""
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
    """Of mean(x ** 2) + eps: x and eps."""
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


def fuse_gelu(graph: fx.Graph) -> None:
    """x * 0.5 * (1 + tanh(0.797 * (x + 0.0447 * x ** 3)))"""
    for root in calls(graph, aten.tanh.default):
        one = sole_user(root, aten.add.Tensor)
        product = one and sole_user(one, aten.mul.Tensor)
        if not one or not product or one.args[1] != 1.0 or (x := _gelu_input(root.args[0])) is None:
            continue
        half = product.args[1] if product.args[0] is one else product.args[0]
        if is_call(half, aten.mul.Tensor) and half.args == (x, 0.5):
            replace(product, put(product, aten.gelu.default, x, like=product, approximate="tanh"))


def _gelu_input(value: Any) -> Node | None:
    """x of 0.797 * (x + 0.0447 * x ** 3)"""
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


def unfold_conv1d(graph: fx.Graph) -> None:
    """The linear layers of GPT-2, addmm over flattened tokens, as linear layers."""
    for root in calls(graph, aten.addmm.default):
        bias, flat, weight = root.args
        out = sole_user(root, aten.view.default)
        if root.kwargs or not out or not is_call(flat, aten.view.default) or not isinstance(weight, fx.Node):
            continue
        x = flat.args[0]
        if tensor(flat).shape[-1:] == tensor(x).shape[-1:] and shape(x)[:-1] == shape(out)[:-1]:
            turned = put(out, aten.t.default, weight)
            turned.meta["val"] = tensor(weight).t()
            replace(out, put(out, aten.linear.default, x, turned, bias, like=out))


class _Layer(NamedTuple):
    """A linear layer of the model."""

    node: Node
    name: str
    weight: Node
    bias: Node | None

    @property
    def outputs(self) -> int:
        return int(tensor(self.weight).shape[0])


def join_linears(graph: fx.Graph) -> None:
    """Linear layers become products to be chosen; those that read the same input one product, whose result is cut."""
    by_input: dict[Node, list[_Layer]] = {}
    for node in calls(graph, aten.linear.default):
        if (layer := _layer(node)) is not None:
            by_input.setdefault(node.args[0], []).append(layer)
    for layers in by_input.values():
        _join(layers)


def _layer(node: Node) -> _Layer | None:
    """None where its numbers are not simply those of the model."""
    _, weight, bias = arguments(node, None, None, None)
    leaf = weight.args[0] if is_call(weight, aten.t.default) else weight
    if leaf.op != "get_attr" or not (bias is None or bias.op == "get_attr"):
        return None
    name = str(leaf.target).removeprefix("model.").removesuffix(".weight")
    return _Layer(node, name, weight, bias)


def _join(layers: list[_Layer]) -> None:
    first = layers[0].node
    x = first.args[0]
    for layer in layers:  # a transposed weight is made where its own layer is
        if layer.weight.op != "get_attr":
            first.prepend(layer.weight)
    names, weights, biases = zip(*[(layer.name, layer.weight, layer.bias) for layer in layers], strict=True)
    product = put(first, operations.product, names, weights, biases)
    whole = put(first, operations.apply, product, x, like=first)
    if len(layers) == 1:
        replace(first, whole)
        return
    whole.meta["val"] = tensor(first).new_empty((*tensor(first).shape[:-1], sum(layer.outputs for layer in layers)))
    cut = put(first, aten.split_with_sizes.default, whole, [layer.outputs for layer in layers], -1)
    parts = [put(first, operator.getitem, cut, i, like=layer.node) for i, layer in enumerate(layers)]
    for layer, part in zip(layers, parts, strict=True):
        replace(layer.node, part)


def fuse_rotary(graph: fx.Graph) -> None:
    """x * cos + cat(-x2, x1) * sin, where x1 and x2 are the halves of x."""
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
    """x of cat(-x2, x1)"""
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


def attend_by_token(graph: fx.Graph) -> None:
    """The attention takes queries, keys and values token by token, as the linear layers make them."""
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
    """Heads and tokens of `[1, heads, tokens, width]` swapped; what concerns the width alone is done after that."""
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
    made = put(before, node.target, *args)
    made.meta["val"] = tensor(node).transpose(1, 2)
    return made


def _swap(node: Node, before: Node) -> Node:
    made = put(before, aten.transpose.int, node, 1, 2)
    made.meta["val"] = tensor(node).transpose(1, 2)
    return made


def quicken_rms_norm(graph: fx.Graph) -> None:
    """`operations.normed` where the numbers are as wide as its sums need them."""
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


def rotate_at_once(graph: fx.Graph) -> None:
    """The rotations of queries and keys that lie side by side in the result of one product."""
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
    """As one, two views `[1, tokens, heads, width]` of parts of one product that follow each other."""
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
    view = put(first, aten.view.default, joined, [batch, tokens, -1, width])
    heads = tensor(one).shape[2] + tensor(other).shape[2]
    view.meta["val"] = tensor(one).new_empty((*tensor(one).shape[:2], heads, tensor(one).shape[3]))
    return view


def write_in_place(graph: fx.Graph) -> None:
    """Sums and products into the memory of an operand that nobody needs any more."""
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


PASSES = (
    drop_checks,
    drop_noops,
    fuse_rms_norm,
    fuse_gelu,
    unfold_conv1d,
    join_linears,
    fuse_rotary,
    attend_by_token,
    quicken_rms_norm,
    share_equals,
    rotate_at_once,
    write_in_place,
)
