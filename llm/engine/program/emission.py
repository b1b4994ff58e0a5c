"""Writes a graph as Python: one function that makes the step, which is one line for each call.

Values that do not depend on the step are computed where the step is made. The text is self-contained: it can be kept in
a file and run again, with the same model, in a process that never called `torch.export`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, MethodDescriptorType
from typing import Any

import torch
from torch import Tensor, fx

from llm.engine.attention.kernels import Kind
from llm.engine.program import operations
from llm.engine.program.graphs import fixed
from llm.errors import Unwritable

HEAD = """\
import torch
from torch import inf, nan
from llm.engine.attention.kernels import Kind
from llm.engine.program import operations


def bind(tensors, product):
"""
INPUTS = ("tokens", "positions", "rows")
ATTEND = "attend"
LARGEST_LITERAL = 4096
"""The most numbers of a constant that is not the model's."""


def written(graph: fx.Graph, constants: Mapping[str, Tensor], own: frozenset[str]) -> str:
    """Return the text of `bind(tensors, product) -> step(tokens, positions, rows, attend) -> logits`.

    Logits are `[1, rows, vocabulary]`. `own` are the targets of tensors that `bind` finds in `tensors`; other constants
    are in the text. `product(names, weights, biases)` gives the product of linear layers.
    """
    return "".join(_Writer(graph, constants, own).lines())


class _Writer:
    def __init__(self, graph: fx.Graph, constants: Mapping[str, Tensor], own: frozenset[str]) -> None:
        self._nodes = list(graph.nodes)
        self._constants, self._own = constants, own
        self._fixed = fixed(graph)
        self._names: dict[fx.Node, str] = {}
        self._functions: dict[str, str] = {}
        self._last_use = {used: node for node in self._nodes for used in node.all_input_nodes}

    def lines(self) -> Iterator[str]:
        inputs = iter(INPUTS)
        for i, node in enumerate(self._nodes):
            kept = "c" if node in self._fixed else "v"
            self._names[node] = next(inputs) if node.op == "placeholder" else f"{kept}{i}"
        once = [f"    {line}\n" for node in self._nodes if node in self._fixed for line in [self._assigned(node)]]
        each = [f"        {line}\n" for node in self._nodes if node not in self._fixed for line in self._step(node)]
        yield HEAD
        yield from (f"    {name} = {path}\n" for path, name in self._functions.items())
        yield from once
        yield f"    def step({', '.join((*INPUTS, ATTEND))}):\n"
        yield from each
        yield "    return step\n"

    def _step(self, node: fx.Node) -> Iterator[str]:
        if node.op == "output":
            yield f"return {self._text(node.args[0][0])}"  # type: ignore[index]
        elif node.op != "placeholder":
            yield self._assigned(node)
            used = [each for each in node.all_input_nodes if self._last_use[each] is node]
            dead = [self._names[each] for each in used if each not in self._fixed and each.op != "placeholder"]
            if dead:  # its memory is free for the next results
                yield f"del {', '.join(dead)}"

    def _assigned(self, node: fx.Node) -> str:
        return f"{self._names[node]} = {self._value(node)}"

    def _value(self, node: fx.Node) -> str:
        if node.op == "get_attr":
            return self._constant(str(node.target))
        if node.op != "call_function":
            raise Unwritable(f"{node.op} {node.target}")
        if node.target is operations.apply:
            product, x = node.args
            return f"{self._text(product)}({self._text(x)})"
        arguments = [self._text(each) for each in node.args]
        keywords = [f"{name}={self._text(each)}" for name, each in node.kwargs.items()]
        if (method := _method(node)) is not None:
            return f"{arguments[0]}.{method}({', '.join(arguments[1:] + keywords)})"
        if len(arguments) == 2 and (sign := SIGNS.get(getattr(node.target, "__name__", ""))):
            return sign.format(*arguments)
        return f"{self._function(node.target)}({', '.join(arguments + keywords)})"

    def _constant(self, target: str) -> str:
        if target in self._own:
            return f"tensors[{target!r}]"
        tensor = self._constants[target]
        if tensor.numel() > LARGEST_LITERAL:
            raise Unwritable(f"a constant of {tensor.numel()} numbers")
        return f"torch.tensor({tensor.tolist()}, dtype={tensor.dtype}, device={str(tensor.device)!r})"

    def _text(self, value: Any) -> str:
        if isinstance(value, fx.Node):
            return self._names[value]
        if isinstance(value, list | tuple):
            texts = [self._text(each) for each in value]
            return f"[{', '.join(texts)}]" if isinstance(value, list) else f"({''.join(f'{text}, ' for text in texts)})"
        if value is None or isinstance(value, bool | int | float | str):
            return repr(value)
        if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
            return str(value)
        if isinstance(value, torch.device):
            return f"torch.{value!r}"
        raise Unwritable(f"an argument {value!r}")

    def _function(self, target: Any) -> str:
        if target is operations.attend:
            return ATTEND
        if target is operations.product:
            return "product"
        path = _path(target)
        return self._functions.setdefault(path, f"f{len(self._functions)}")


SIGNS = {
    "getitem": "{}[{}]", "add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "floordiv": "{} // {}", "mod": "{} % {}",
}  # fmt: skip
"""The signs of Python's own operators, which compute with sizes."""
HOLDERS = {"torch": torch, "torch._C._nn": torch._C._nn}
"""Modules with functions that equal operators, but are quicker to call."""


def _method(node: fx.Node) -> str | None:
    """Return the name of the tensor's method that is this operator, if there is one: calling it costs half as much."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return None
    schema = node.target._schema
    name = schema.name.removeprefix("aten::")
    if name == "sym_size":
        return "size"
    takes_self = bool(node.args) and schema.arguments[0].name == "self"
    found = isinstance(getattr(torch._C.TensorBase, name, None), MethodDescriptorType)
    return name if takes_self and found else None


def _path(target: Any) -> str:
    if target is Kind:
        return "Kind"
    if isinstance(target, torch._ops.OpOverload):
        name = target._schema.name.partition("::")[2]
        for path, holder in HOLDERS.items():
            if target.namespace == "aten" and isinstance(getattr(holder, name, None), BuiltinFunctionType):
                return f"{path}.{name}"
        return f"torch.ops.{target}"
    if getattr(target, "__module__", None) == operations.__name__:
        return f"operations.{target.__name__}"
    raise Unwritable(f"a call of {target!r}")
