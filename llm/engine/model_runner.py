"""Computes the forward of one step by the modules of a causal LM of transformers. It knows tokens, not requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from llm.engine.attention import packed
from llm.engine.layout import Layout


class Forward(Protocol):
    """Computes the packed tokens of one step: `PackedModel` by modules, `program.program.Program` by a step program."""

    layout: Layout
    vocabulary: int

    def __call__(
        self, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int], pack: packed.Pack
    ) -> Tensor:
        """Return logits `[len(rows), vocabulary]` of the tokens at `rows`; keys and values are stored on the way."""


class PackedModel:
    """A model whose attention is `attention.packed.packed_attention` from now on."""

    def __init__(self, model: Any, layout: Layout) -> None:
        model.set_attn_implementation(packed.NAME)
        self.layout = layout
        self.vocabulary: int = model.get_input_embeddings().weight.shape[0]
        self.model = model

    def __call__(
        self, tokens: Sequence[int], positions: Sequence[int], rows: Sequence[int], pack: packed.Pack
    ) -> Tensor:
        device = self.layout.device
        with packed.attending(pack):
            out = self.model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=torch.tensor([positions], device=device),
                logits_to_keep=torch.tensor(rows, device=device),
                use_cache=False,
            )
        logits: Tensor = out.logits[0]
        return logits
