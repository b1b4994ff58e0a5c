"""The attention function a model calls in each layer, over the packed tokens of one step.

transformers calls `packed_attention` in the place of its own; which sequences the tokens belong to is in a `Pack`,
found through a variable of the calling thread (some models drop keywords they do not know). The tokens of a pack are
one for each row of each pool, in order, then the prompt chunks.

Knows no model by name: scale, window, softcap and sinks arrive as keywords, per layer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from llm.engine.kvcache import Pool, Segment

NAME = "packed"

STRIDE = 32
"""Rows in decode are computed up to a multiple of it: oneDNN prepares for each new shape, which costs a millisecond."""
WIDENED = 512
"""So many tokens of all rows, or fewer, are widened to the query's numbers: many small products of fewer bits take
longer than that."""
FEW_QUERIES = 16

_thread = threading.local()


class Kind(NamedTuple):
    """How a layer attends: one query sees `window` keys (None: all), its scores are scaled and perhaps capped."""

    scale: float | None
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    @property
    def plain(self) -> bool:
        return self.softcap is None and self.sinks is None


class Part(Protocol):
    """Some of the packed tokens: stores their keys and values, answers their queries."""

    size: int

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        """query, key, value: `[1, size, heads, width]` of these tokens, and so is the result."""


class PoolRows:
    """One new token for each row of a pool."""

    def __init__(self, pool: Pool) -> None:
        lengths = [slot.length for slot in pool.slots]
        device = pool.keys[0].device
        self.size = len(lengths)
        self._pool = pool
        self._end = min(pool.capacity, -(-(max(lengths) + 1) // STRIDE) * STRIDE)
        self._rows = torch.arange(self.size, device=device)
        self._positions = torch.tensor(lengths, device=device)
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        keys, values = self._pool.keys[layer], self._pool.values[layer]
        keys[self._rows, :, self._positions] = key[0].to(keys.dtype)
        values[self._rows, :, self._positions] = value[0].to(values.dtype)
        kv_heads = key.shape[2]
        # the query heads that share a key head are its queries, so that keys and values are never repeated
        grouped = query.reshape(self.size, kv_heads, query.shape[2] // kv_heads, -1)
        keys, values = keys[: self.size, :, : self._end], values[: self.size, :, : self._end]
        if self.size * self._end <= WIDENED:
            keys, values = keys.to(query.dtype), values.to(query.dtype)
        out = attend(grouped, [keys], [values], self._mask(kind.window, query.dtype), kind)
        return out.reshape(1, self.size, query.shape[2], -1)

    def _mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        if window not in self._masks:
            hidden = hidden_keys(self._positions, self._end, window)
            self._masks[window] = _additive(hidden, dtype)[:, None, None]
        return self._masks[window]


class Chunk:
    """The next tokens of one prompt, from position `start` on."""

    def __init__(self, segment: Segment, start: int, size: int) -> None:
        self.size = size
        self._segment = segment
        self._start, self._end = start, start + size
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        keys, values = self._segment.keys[layer], self._segment.values[layer]
        first = self._segment.start
        query, key, value = query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        keys[:, self._start - first : self._end - first] = key[0]
        values[:, self._start - first : self._end - first] = value[0]
        keys, values = keys[None, :, : self._end - first], values[None, :, : self._end - first]
        if kind.plain and not first:
            return self._plain(query, keys, values, kind).transpose(1, 2)
        all_keys, all_values = [keys], [values]
        if (base := self._segment.base) is not None:
            all_keys.insert(0, base.keys[layer][None, :, :first])
            all_values.insert(0, base.values[layer][None, :, :first])
        heads, kv_heads = query.shape[1], key.shape[1]
        grouped = query.reshape(1, kv_heads, heads // kv_heads * self.size, -1)
        mask = self._mask(kind.window, query).repeat(heads // kv_heads, 1)
        if kind.window is None:
            mask = mask[:, first:]
        out = attend(grouped, all_keys, all_values, mask, kind)
        return out.reshape(1, heads, self.size, -1).transpose(1, 2)

    def _plain(self, query: Tensor, keys: Tensor, values: Tensor, kind: Kind) -> Tensor:
        whole = self._start == 0 and (kind.window is None or self._end <= kind.window)
        inside = query.to(keys.dtype)
        out = F.scaled_dot_product_attention(
            inside,
            keys,
            values,
            attn_mask=None if whole else self._mask(kind.window, inside),
            is_causal=whole,
            scale=kind.scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return out.to(query.dtype)

    def _mask(self, window: int | None, query: Tensor) -> Tensor:
        if window not in self._masks:
            positions = torch.arange(self._start, self._end, device=query.device)
            self._masks[window] = _additive(hidden_keys(positions, self._end, window), query.dtype)
        return self._masks[window]


class Pack:
    """The tokens of one step, part by part."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._sizes = [part.size for part in parts]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        """query, key, value: `[1, tokens, heads, width]`, and so is the result."""
        if len(self._parts) == 1:
            return self._parts[0].attend(layer, query, key, value, kind)
        queries, keys, values = (x.split_with_sizes(self._sizes, 1) for x in (query, key, value))
        each = zip(self._parts, queries, keys, values, strict=True)
        return torch.cat([part.attend(layer, q, k, v, kind) for part, q, k, v in each], 1)


def attend(query: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor, kind: Kind) -> Tensor:
    """query `[rows, kv_heads, queries, width]`, keys and values `[rows, kv_heads, length, width]`.

    Keys and values may lie in several pieces, one after the other, and in numbers of fewer bits than the query's. The
    mask is added to the scores of the last keys, as many as it has; all queries see those before.
    """
    query = query * (query.shape[-1] ** -0.5 if kind.scale is None else kind.scale)
    # many scores are left in the keys' numbers, which they were computed in: the softmax is inside in float32 anyway
    narrow = query.shape[2] > FEW_QUERIES and kind.plain
    scores = _all_scores(query, keys, keys[0].dtype if narrow else query.dtype)
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
    """`[rows, kv_heads, queries, length]`, in the keys' numbers."""
    if keys.dtype == query.dtype or query.shape[2] > FEW_QUERIES:
        return torch.matmul(query.to(keys.dtype), keys.transpose(2, 3))
    # the other way round: a third of the time with bfloat16, where oneDNN would bring the keys into another order first
    return torch.matmul(keys, query.to(keys.dtype).transpose(2, 3)).transpose(2, 3)


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
    """Which of the keys 0 to end-1 a query at each position must not see."""
    keys = torch.arange(end, device=positions.device)
    hidden = keys > positions[:, None]
    return hidden if window is None else hidden | (keys <= positions[:, None] - window)


def _additive(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


@contextmanager
def attending(step: Any) -> Iterator[None]:
    """Within it, the models that this thread calls attend through `step` (a Pack, or whatever has its method)."""
    _thread.step = step
    try:
        yield
    finally:
        del _thread.step


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls. The mask is ours to make; further keywords are checked once, by `verify`."""
    kind = Kind(scaling, sliding_window, softcap, s_aux)
    by_token = [x.transpose(1, 2) for x in (query, key, value)]
    return _thread.step.attend(module.layer_idx, *by_token, kind), None


AttentionInterface.register(NAME, packed_attention)
