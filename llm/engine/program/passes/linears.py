"""Turns linear layers into the products that are chosen for them."""

from __future__ import annotations

import operator
from typing import NamedTuple

from torch import fx

from llm.engine.program import operations
from llm.engine.program.graphs import Node, arguments, aten, calls, is_call, put, replace, shape, sole_user, tensor


def unfold_conv1d(graph: fx.Graph) -> None:
    """Turn the linear layers of GPT-2, addmm over flattened tokens, into linear layers."""
    for root in calls(graph, aten.addmm.default):
        bias, flat, weight = root.args
        out = sole_user(root, aten.view.default)
        if root.kwargs or not out or not is_call(flat, aten.view.default) or not isinstance(weight, fx.Node):
            continue
        x = flat.args[0]
        if tensor(flat).shape[-1:] == tensor(x).shape[-1:] and shape(x)[:-1] == shape(out)[:-1]:
            turned = put(out, aten.t.default, weight, value=tensor(weight).t())
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
    """Turn linear layers into products to be chosen; those that read the same input become one, whose result is cut."""
    by_input: dict[Node, list[_Layer]] = {}
    for node in calls(graph, aten.linear.default):
        if (layer := _layer(node)) is not None:
            by_input.setdefault(node.args[0], []).append(layer)
    for layers in by_input.values():
        _join(layers)


def _layer(node: Node) -> _Layer | None:
    """Return the layer of a call; None if its numbers are not simply those of the model."""
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
