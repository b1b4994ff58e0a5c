"""What passes ask of a graph, and how they change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx

aten: Any = torch.ops.aten
Node = Any
"""An `fx.Node`: what its arguments may be, its types do not tell."""


def is_call(value: Any, *targets: Any) -> bool:
    """Is it the result of one of these operators?"""
    return isinstance(value, fx.Node) and value.op == "call_function" and value.target in targets


def calls(graph: fx.Graph, *targets: Any) -> Iterator[Node]:
    """In the order in which they run; the graph may be changed meanwhile."""
    return iter([node for node in graph.nodes if is_call(node, *targets)])


def tensor(node: Node) -> Tensor:
    """Shape and dtype of its result; numbers are none."""
    found: Tensor = node.meta["val"]
    return found


def size(node: Node, dim: int) -> int | None:
    """None where it depends on the step."""
    found: Any = tensor(node).shape[dim]  # or a SymInt
    return found if isinstance(found, int) else None


def fixed(graph: fx.Graph) -> set[Node]:
    """The nodes that are the same in every step: constants of the model, and what is computed of them alone."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def arguments(node: Node, *defaults: Any) -> tuple[Any, ...]:
    """Its positional arguments, the missing ones by the last of the defaults."""
    return (*node.args, *defaults[len(node.args) :])


def put(
    node: Node, target: Callable[..., Any], *args: Any, like: Node | None = None, value: Any = None, **keywords: Any
) -> Node:
    """A new call before `node`; its result is as that of `like`, or as `value`, where that matters."""
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
    """Do their results have the same shape and dtype?"""
    return tensor(node).dtype == tensor(other).dtype and shape(node) == shape(other)


def shape(node: Node) -> tuple[int | str, ...]:
    """With names for what depends on the step: a comparison of such a size itself goes by the example."""
    sizes: tuple[Any, ...] = tuple(tensor(node).shape)
    return tuple(each if isinstance(each, int) else str(each) for each in sizes)


def sole_user(node: Node, *targets: Any) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 and is_call(users[0], *targets) else None


def factors(node: Any, find: Callable[[Any], bool]) -> tuple[Node, Any] | None:
    """Of a product of two, or their sum: the one that is found, and the other."""
    if is_call(node, aten.mul.Tensor, aten.add.Tensor) and not node.kwargs:
        one, other = node.args
        if find(one):
            return one, other
        if find(other):
            return other, one
    return None
