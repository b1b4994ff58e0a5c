"""Has what passes ask of a graph, and how they change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten: Any = torch.ops.aten
Node = Any
"""An `fx.Node`; its types do not tell what its arguments may be."""


def is_call(value: Any, *targets: Any) -> bool:
    """Return whether a value is the result of one of these operators."""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def calls(graph: fx.Graph, *targets: Any) -> Iterator[Node]:
    """Return the calls of these operators in the order in which they run; the graph may be changed meanwhile."""
    return iter([node for node in graph.nodes if is_call(node, *targets)])


def tensor(node: Node) -> Tensor:
    """Return a tensor with the shape and dtype of a node's result, without its numbers."""
    found: Tensor = node.meta["val"]
    return found


def size(node: Node, dim: int) -> int | None:
    """Return a size of a node's result, None if it depends on the step."""
    found: Any = tensor(node).shape[dim]  # or a SymInt
    return found if isinstance(found, int) else None


def fixed(graph: fx.Graph) -> set[Node]:
    """Return the nodes that are the same in every step: constants of the model, and what is computed of them alone."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def arguments(node: Node, *defaults: Any) -> tuple[Any, ...]:
    """Return a node's positional arguments, the missing ones by the last of the defaults."""
    return (*node.args, *defaults[len(node.args) :])


def put(
    node: Node, target: Callable[..., Any], *args: Any, like: Node | None = None, value: Any = None, **keywords: Any
) -> Node:
    """Put a new call before `node` and return it. Its result is as that of `like`, or as `value`, if that matters."""
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args, keywords)
    if like is not None:
        made.meta = dict(like.meta)
    if value is not None:
        made.meta["val"] = value
    return made


def replace(node: Node, by: Node) -> None:
    node.replace_all_uses_with(by)
    node.graph.erase_node(node)


def same(node: Node, other: Node) -> bool:
    """Return whether the results of two nodes have the same shape and dtype."""
    return tensor(node).dtype == tensor(other).dtype and shape(node) == shape(other)


def shape(node: Node) -> tuple[int | str, ...]:
    """Return a result's shape, with names for sizes that depend on the step: those compare by the example."""
    sizes: tuple[Any, ...] = tuple(tensor(node).shape)
    return tuple(each if isinstance(each, int) else str(each) for each in sizes)


def sole_user(node: Node, *targets: Any) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and is_call(users[0], *targets) else None


def factors(node: Any, find: Callable[[Any], bool]) -> tuple[Node, Any] | None:
    """Return the operand of a product or sum of two for which `find` is true, and the other one."""
    if is_call(node, aten.mul.Tensor, aten.add.Tensor) and not node.kwargs:
        one, other = node.args
        if find(one):
            return one, other
        if find(other):
            return other, one
    return None
