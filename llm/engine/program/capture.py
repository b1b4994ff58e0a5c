"""Captures a causal LM as a graph of plain operators, by `torch.export`, with its attention left open.

In the graph each attention is one call of the operator `llm::attend`, whose arguments say how that layer attends: the
graph knows neither keys and values of earlier tokens nor what a step is. The numbers of tokens and of rows are
variables of it. What the model does before, between and behind its layers is in the graph as it stands in its code.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from transformers import AttentionInterface

NAME = "captured"
MOST_TOKENS = 1 << 20


class Captured(NamedTuple):
    """`graph` takes tokens `[1, T]`, positions `[1, T]` and rows `[R]`, and gives logits `[1, R, vocabulary]`."""

    graph: fx.Graph
    constants: Mapping[str, Tensor]
    """Constants by the targets of get_attr nodes; those of the model have its own names and its own storage."""


@torch.library.custom_op("llm::attend", mutates_args=())
def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layer: int,
    scale: float | None,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Stand for an attention: query, key, value `[1, heads, tokens, width]`, result `[1, tokens, heads, width]`."""
    raise NotImplementedError("it stands for an attention in a graph, and is replaced before that runs")


@attend.register_fake
def _shape(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
    return query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3])


OPAQUE = torch.ops.llm.attend.default


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks, with the same keywords as `attention.packed.packed_attention`."""
    return attend(query, key, value, module.layer_idx, scaling, sliding_window, softcap, s_aux), None


AttentionInterface.register(NAME, _attention)


class _Step(torch.nn.Module):
    """The call of a step, and nothing else of the model's interface."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, positions: Tensor, rows: Tensor) -> Tensor:
        out = self.model(input_ids=tokens, position_ids=positions, logits_to_keep=rows, use_cache=False)
        logits: Tensor = out.logits
        return logits


def captured(model: Any) -> Captured:
    """Return the model as a graph, and leave it as it was. Raises whatever `torch.export` raises."""
    device = model.device
    tokens = torch.export.Dim("tokens", min=2, max=MOST_TOKENS)
    rows = torch.export.Dim("rows", min=2, max=MOST_TOKENS)
    # what is 0 or 1 in the example would be taken for a constant
    example = (
        torch.zeros(1, 8, dtype=torch.long, device=device),
        torch.arange(8, device=device)[None],
        torch.arange(4, device=device),
    )
    with _attending_openly(model), torch.no_grad():
        exported = torch.export.export(
            _Step(model), example, dynamic_shapes=({1: tokens}, {1: tokens}, {0: rows}), strict=False
        )
    module = exported.module()
    return Captured(module.graph, dict(_constants(module, model)))


@contextmanager
def _attending_openly(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def own_tensors(model: Any) -> dict[str, Tensor]:
    """Return the model's parameters and buffers, by the names that they have in a graph of it."""
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {f"model.{name}": tensor.detach() for name, tensor in named}


def _constants(module: fx.GraphModule, model: Any) -> Iterator[tuple[str, Tensor]]:
    own = own_tensors(model)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            yield node.target, own[node.target] if node.target in own else operator.attrgetter(node.target)(module)
