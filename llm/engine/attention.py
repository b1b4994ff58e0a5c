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
        """query, key, value: `[heads, size, width]` of these tokens; the result is `[size, heads, width]`."""


class PoolRows:
    """One new token for each row of a pool."""

    def __init__(self, pool: Pool) -> None:
        lengths = [slot.length for slot in pool.slots]
        device = pool.keys[0].device
        self.size = len(lengths)
        self._pool = pool
        self._end = max(lengths) + 1
        self._rows = torch.arange(self.size, device=device)
        self._positions = torch.tensor(lengths, device=device)
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        keys, values = self._pool.keys[layer], self._pool.values[layer]
        keys[self._rows, :, :, self._positions] = key.transpose(0, 1)
        values[self._rows, :, self._positions] = value.transpose(0, 1)
        heads, kv_heads = query.shape[0], key.shape[0]
        # the query heads that share a key head are its queries, so that keys and values are never repeated
        grouped = query.transpose(0, 1).reshape(self.size, kv_heads, heads // kv_heads, -1)
        keys, values = keys[: self.size, :, :, : self._end], values[: self.size, :, : self._end]
        out = attend(grouped, keys, values, self._mask(kind.window, query.dtype), kind)
        return out.reshape(self.size, heads, -1)

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
        keys[:, self._start : self._end] = key
        values[:, self._start : self._end] = value
        keys, values = keys[None, :, : self._end], values[None, :, : self._end]
        if kind.plain:
            return self._plain(query[None], keys, values, kind)[0].transpose(0, 1)
        heads, kv_heads = query.shape[0], key.shape[0]
        grouped = query.reshape(1, kv_heads, heads // kv_heads * self.size, -1)
        mask = self._mask(kind.window, query).repeat(heads // kv_heads, 1)
        out = attend(grouped, keys.transpose(2, 3), values, mask, kind)
        return out.reshape(heads, self.size, -1).transpose(0, 1)

    def _plain(self, query: Tensor, keys: Tensor, values: Tensor, kind: Kind) -> Tensor:
        whole = self._start == 0 and (kind.window is None or self._end <= kind.window)
        return F.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=None if whole else self._mask(kind.window, query),
            is_causal=whole,
            scale=kind.scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )

    def _mask(self, window: int | None, query: Tensor) -> Tensor:
        if window not in self._masks:
            positions = torch.arange(self._start, self._end, device=query.device)
            self._masks[window] = _additive(hidden_keys(positions, self._end, window), query.dtype)
        return self._masks[window]


class Pack:
    """The tokens of one step, part by part."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        """query, key, value: `[1, heads, tokens, width]`; the result is `[1, tokens, heads, width]`."""
        out, first = [], 0
        for part in self._parts:
            own = slice(first, first + part.size)
            out.append(part.attend(layer, query[0, :, own], key[0, :, own], value[0, :, own], kind))
            first = own.stop
        return torch.cat(out)[None]


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, kind: Kind) -> Tensor:
    """query `[rows, kv_heads, queries, width]`, keys transposed `[rows, kv_heads, width, length]`, values not."""
    scale = query.shape[-1] ** -0.5 if kind.scale is None else kind.scale
    scores = torch.matmul(query * scale, keys)
    if kind.softcap is not None:
        scores = torch.tanh(scores / kind.softcap) * kind.softcap
    scores = scores + mask
    if kind.sinks is None:
        return torch.matmul(scores.softmax(-1, dtype=torch.float32).to(values.dtype), values)
    # a sink takes part in the softmax as one more key, whose value is nothing
    rows, kv_heads, queries, _ = scores.shape
    heads = kind.sinks.numel() // kv_heads
    sinks = kind.sinks.view(1, kv_heads, heads, 1).repeat_interleave(queries // heads, 2).expand(rows, -1, -1, -1)
    weights = torch.cat((scores, sinks.to(scores.dtype)), -1).softmax(-1, dtype=torch.float32)[..., :-1]
    return torch.matmul(weights.to(values.dtype), values)


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
    return _thread.step.attend(module.layer_idx, query, key, value, kind), None


AttentionInterface.register(NAME, packed_attention)
