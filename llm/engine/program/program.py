"""Binds the text of a step program to its model's numbers, with a product of choice for each linear layer.

`capture` and `passes` make a graph of the model, `emission` a text of the graph. The text is made once for a model and
a version of everything that made it, and kept in a file (`startup`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llm.engine.attention import packed
from llm.engine.layout import Decode, Layout
from llm.engine.linear.layer import Choose, Linear, plain
from llm.engine.program import emission, passes
from llm.engine.program.capture import captured, own_tensors

Step = Callable[[Tensor, Tensor, Tensor, Any], Tensor]


def written(model: Any) -> str:
    """Return the text of a model's step. Raises whatever `capture`, `passes` and `emission` raise."""
    graph, constants = captured(model)
    passes.simplify(graph)
    return emission.written(graph, constants, frozenset(own_tensors(model)))


class Text:
    """A text with the numbers of its model, from which any number of programs can be made.

    Where linear layers were joined, the model's own weights are parts of the joined ones from then on: they are in
    memory once.
    """

    def __init__(self, text: str, model: Any) -> None:
        namespace: dict[str, Any] = {}
        exec(compile(text, "<step program>", "exec"), namespace)  # noqa: S102
        self._bind: Callable[..., Step] = namespace["bind"]
        self._model = model
        self._tensors: Mapping[str, Tensor] = own_tensors(model)
        self._linears: dict[tuple[str, ...], Linear] = {}

    def step(self, choose: Choose) -> Step:
        def product(names: tuple[str, ...], weights: tuple[Tensor, ...], biases: tuple[Tensor | None, ...]) -> Any:
            if names not in self._linears:
                self._linears[names] = self._linear(names, weights, biases)
            return choose(self._linears[names])

        with torch.inference_mode():
            return self._bind(self._tensors, product)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        return self._tensors

    @property
    def linears(self) -> tuple[Linear, ...]:
        return tuple(self._linears.values())

    def release(self) -> None:
        """Give up the model's numbers; the programs made so far keep those that they use."""
        self._model.to("meta")
        self._tensors, self._linears = {}, {}

    def _linear(self, names: tuple[str, ...], weights: tuple[Tensor, ...], biases: tuple[Tensor | None, ...]) -> Linear:
        if len(names) == 1:
            return Linear(names, weights[0], biases[0])
        whole = torch.cat(weights)
        for name, part in zip(names, torch.split(whole, [len(weight) for weight in weights]), strict=True):
            parameter = self._model.get_submodule(name).weight
            if parameter.shape == part.shape:
                parameter.data = part
        self._tensors = own_tensors(self._model)
        return Linear(names, whole, _joined(weights, biases))


def _joined(weights: Sequence[Tensor], biases: Sequence[Tensor | None]) -> Tensor | None:
    if all(bias is None for bias in biases):
        return None
    pairs = zip(weights, biases, strict=True)
    return torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs])


class Program:
    """The forward of a packed step, as `model_runner.PackedModel` is, with the products that `choose` gives."""

    def __init__(self, text: Text, layout: Layout, vocabulary: int, choose: Choose = plain) -> None:
        self.layout = layout
        self.vocabulary = vocabulary
        self._text = text
        self._step = text.step(choose)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All numbers of the model, by their names."""
        return self._text.tensors

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The products of a step, in the order in which it comes to them."""
        return self._text.linears

    def rebound(self, choose: Choose) -> Program:
        """Return the same program with other products."""
        return Program(self._text, self.layout, self.vocabulary, choose)

    def keeping(self, dtype: torch.dtype, decode: Decode) -> Program:
        """Return the same program with keys and values in such numbers, read in decode in such ways."""
        other = copy.copy(self)
        other.layout = self.layout._replace(dtype=dtype, decode=decode)
        return other

    def release(self) -> None:
        """Give up the model's numbers that this program does not use. It cannot be rebound after that."""
        self._text.release()

    def __call__(
        self, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int], pack: packed.Pack
    ) -> Tensor:
        device = self.layout.device
        logits = self._step(
            torch.tensor([tokens], device=device),
            torch.tensor([positions], device=device),
            torch.tensor(rows, device=device),
            pack.attend,
        )
        return logits[0]
