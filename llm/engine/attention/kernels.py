"""Computes how queries attend to keys, and nothing else.

There is more than one way for rows in decode. Which of them is the fastest depends on the machine, on how long the rows
are and on the number type of keys and values: `llm.engine.linear.timing` measures it. The module knows no sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from llm.engine.layout import FEW_TOKENS, PRODUCTS

FEW_QUERIES = 16


class Kind(NamedTuple):
    """How a layer attends: one query sees `window` keys (None: all), its scores are scaled and perhaps capped."""

    scale: float | None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


Way = Callable[[Tensor, Tensor, Tensor, Tensor, Kind], Tensor]
"""One way for rows in decode.

query `[rows, kv_heads, queries, width]`: the heads that share a key head are its queries, so that keys and values are
never repeated; keys and values `[rows, kv_heads, length, width]`; mask `[rows, 1, 1, length]`, in the keys' numbers.
"""


def _by_products(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, kind: Kind) -> Tensor:
    if keys.shape[0] * keys.shape[2] <= FEW_TOKENS:  # many small products of fewer bits take longer than to widen them
        keys, values = keys.to(query.dtype), values.to(query.dtype)
    return products(query, [keys], [values], mask, kind)


def _fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, kind: Kind) -> Tensor:
    """Attend in one call, with sums and softmax in float32. Plain kinds only."""
    inside = query.to(keys.dtype)
    return F.scaled_dot_product_attention(inside, keys, values, mask, scale=kind.scale).to(query.dtype)


def _fused_by_head(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, kind: Kind) -> Tensor:
    """Attend as `_fused`, each head by itself: keys and values are read more often, but threads share more work."""
    inside = query.to(keys.dtype).flatten(1, 2).unsqueeze(2)
    out = F.scaled_dot_product_attention(inside, keys, values, mask, scale=kind.scale, enable_gqa=True)
    return out.to(query.dtype).view(query.shape[:-1] + values.shape[-1:])


WAYS: Mapping[str, Way] = {
    PRODUCTS: _by_products,
    "fused": _fused,
    "fused by head": _fused_by_head,
}


def products(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor, kind: Kind) -> Tensor:
    """Attend by two products and a softmax: query `[rows, kv_heads, queries, width]`.

    Keys and values `[rows, kv_heads, length, width]` may lie in several pieces, one after the other, and in numbers of
    fewer bits than the query's. The mask is added to the scores of the last keys, as many as it has; all queries see
    the keys before those.
    """
    query = query * (query.shape[-1] ** -0.5 if kind.scale is None else kind.scale)
    # scores are left in the keys' numbers, which they were computed in: the softmax is inside in float32 anyway
    scores = _all_scores(query, keys, keys[0].dtype if kind.plain else query.dtype)
    if kind.softcap is not None:
        scores = torch.tanh(scores / kind.softcap) * kind.softcap
    scores[..., -mask.shape[-1] :] += mask
    if kind.sinks is None:
        return _weighted(scores.softmax(-1), values).to(query.dtype)
    # a sink takes part in the softmax as one more key, whose value is nothing
    rows, kv_heads, queries, _ = scores.shape
    heads = kind.sinks.numel() // kv_heads
    sinks = kind.sinks.view(1, kv_heads, heads, 1).repeat_interleave(queries // heads, 2).expand(rows, -1, -1, -1)
    weights = torch.cat((scores, sinks.to(scores.dtype)), -1).softmax(-1)[..., :-1]
    return _weighted(weights, values).to(query.dtype)


def _scores(query: Tensor, keys: Tensor) -> Tensor:
    """Return scores `[rows, kv_heads, queries, length]`, in the keys' numbers."""
    if keys.dtype == query.dtype or query.shape[2] > FEW_QUERIES:
        return torch.matmul(query.to(keys.dtype), keys.transpose(2, 3))
    # the other way round: a third of the time with bfloat16, where oneDNN would bring the keys into another order first
    return torch.matmul(keys, query.to(keys.dtype).transpose(2, 3)).transpose(2, 3).contiguous()


def _all_scores(query: Tensor, keys: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if len(keys) == 1:
        return _scores(query, keys[0]).to(dtype)
    scores = query.new_empty((*query.shape[:3], sum(piece.shape[2] for piece in keys)), dtype=dtype)
    parts = torch.split(scores, [piece.shape[2] for piece in keys], -1)
    for piece, part in zip(keys, parts, strict=True):
        part.copy_(_scores(query, piece))
    return scores


def _weighted(weights: Tensor, values: Sequence[Tensor]) -> Tensor:
    parts = torch.split(weights.to(values[0].dtype), [piece.shape[-2] for piece in values], -1)
    out = torch.matmul(parts[0], values[0])
    for part, piece in zip(parts[1:], values[1:], strict=True):
        out += torch.matmul(part, piece)
    return out


def hidden_keys(positions: Tensor, end: int, window: int | None) -> Tensor:
    """Return `[positions, end]`: which of the keys 0 to end-1 a query at each position must not see."""
    keys = torch.arange(end, device=positions.device)
    hidden = keys > positions[:, None]
    return hidden if window is None else hidden | (keys <= positions[:, None] - window)


def additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
