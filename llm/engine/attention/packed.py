"""Defines the attention function that a model calls in each layer, over the packed tokens of one step.

transformers calls `packed_attention` in the place of its own. A `Pack` tells which sequences the tokens belong to; it
is found through a variable of the calling thread, since some models drop keywords they do not know. The tokens of a
pack are one for each row of each pool, in order, then the prompt chunks.

The module knows no model by name: scale, window, softcap and sinks arrive as keywords, per layer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from llm.engine.attention.kernels import WAYS, Kind, additive, hidden_keys, products
from llm.engine.kvcache import Pool, Segment
from llm.engine.layout import PRODUCTS

NAME = "packed"

MOST_SCORES = 1 << 24
"""The most scores that a chunk makes at once, of all heads together: 64 MiB in float32, a few times over."""
STRIDE = 32
"""Rows in decode are computed up to a multiple of it: oneDNN prepares for each new shape, which costs a millisecond."""

_thread = threading.local()


class Part(Protocol):
    """Some of the packed tokens: it stores their keys and values and answers their queries."""

    size: int

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        """Attend in one layer. query, key, value and the result: `[1, size, heads, width]`, of these tokens."""


class PoolRows:
    """The part with one new token for each row of a pool."""

    def __init__(self, pool: Pool) -> None:
        lengths = [slot.length for slot in pool.slots]
        device = pool.keys[0].device
        self.size = len(lengths)
        self._pool = pool
        self._end = min(pool.capacity, -(-(max(lengths) + 1) // STRIDE) * STRIDE)
        self._attend = WAYS[pool.decode.way(self.size, self._end)]
        self._rows = torch.arange(self.size, device=device)
        self._positions = torch.tensor(lengths, device=device)
        self._masks: dict[int | None, Tensor] = {}
        self._places: dict[int, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        keys, values = self._pool.keys[layer], self._pool.values[layer]
        kv_heads = key.shape[2]
        places = self._new_places(kv_heads)
        for whole, new in ((keys, key), (values, value)):
            width = whole.shape[-1]
            whole.view(-1, width).index_copy_(0, places, new.to(whole.dtype).reshape(-1, width))
        grouped = query.view(self.size, kv_heads, query.shape[2] // kv_heads, -1)
        keys, values = keys[: self.size, :, : self._end], values[: self.size, :, : self._end]
        attend = self._attend if kind.plain else WAYS[PRODUCTS]
        return attend(grouped, keys, values, self._mask(kind.window), kind).reshape(1, self.size, query.shape[2], -1)

    def _new_places(self, kv_heads: int) -> Tensor:
        """Return `[rows * kv_heads]`: the places of a layer's new vectors, counted in vectors from the pool's first."""
        if kv_heads not in self._places:
            heads = self._rows[:, None] * kv_heads + torch.arange(kv_heads, device=self._rows.device)
            self._places[kv_heads] = (heads * self._pool.capacity + self._positions[:, None]).flatten()
        return self._places[kv_heads]

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            hidden = hidden_keys(self._positions, self._end, window)
            self._masks[window] = additive(hidden, self._pool.keys[0].dtype)[:, None, None]
        return self._masks[window]


class Chunk:
    """The part with the next tokens of one prompt, from position `start` on.

    Its queries attend in pieces where all at once would make more than MOST_SCORES scores.
    """

    def __init__(self, segment: Segment, start: int, size: int) -> None:
        self.size = size
        self._segment = segment
        self._start, self._end = start, start + size
        self._masks: dict[int | None, Tensor] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        keys, values = self._segment.keys[layer], self._segment.values[layer]
        first = self._segment.start
        keys[:, self._start - first : self._end - first] = key[0].transpose(0, 1)
        values[:, self._start - first : self._end - first] = value[0].transpose(0, 1)
        most = max(1, MOST_SCORES // (query.shape[2] * self._end))
        if self.size <= most or self._causal(kind):
            return self._answers(layer, query, 0, kind)
        pieces = torch.split(query, most, 1)
        return torch.cat([self._answers(layer, piece, most * i, kind) for i, piece in enumerate(pieces)], 1)

    def _answers(self, layer: int, query: Tensor, at: int, kind: Kind) -> Tensor:
        """Attend from the queries `[1, queries, heads, width]` that begin behind the first `at` of this chunk."""
        first, size = self._segment.start, query.shape[1]
        query = query.transpose(1, 2)
        keys = self._segment.keys[layer][None, :, : self._end - first]
        values = self._segment.values[layer][None, :, : self._end - first]
        if kind.plain and not first:
            return self._plain(query, keys, values, at, kind).transpose(1, 2)
        all_keys, all_values = [keys], [values]
        if (base := self._segment.base) is not None:
            all_keys.insert(0, base.keys[layer][None, :, :first])
            all_values.insert(0, base.values[layer][None, :, :first])
        heads, kv_heads = query.shape[1], keys.shape[1]
        grouped = query.reshape(1, kv_heads, heads // kv_heads * size, -1)
        mask = self._mask(kind.window, query, at).repeat(heads // kv_heads, 1)
        if kind.window is None:
            mask = mask[:, first:]
        out = products(grouped, all_keys, all_values, mask, kind)
        return out.reshape(1, heads, size, -1).transpose(1, 2)

    def _plain(self, query: Tensor, keys: Tensor, values: Tensor, at: int, kind: Kind) -> Tensor:
        causal = self._causal(kind)
        inside = query.to(keys.dtype)
        out = F.scaled_dot_product_attention(
            inside,
            keys,
            values,
            attn_mask=None if causal else self._mask(kind.window, inside, at),
            is_causal=causal,
            scale=kind.scale,
            enable_gqa=query.shape[1] != keys.shape[1],
        )
        return out.to(query.dtype)

    def _causal(self, kind: Kind) -> bool:
        """Return whether each query sees all keys up to its own: such attention needs no mask and keeps no scores."""
        return kind.plain and self._start == 0 and (kind.window is None or self._end <= kind.window)

    def _mask(self, window: int | None, query: Tensor, at: int) -> Tensor:
        if (kept := self._masks.get(window)) is not None:
            return kept
        positions = torch.arange(self._start + at, self._start + at + query.shape[2], device=query.device)
        mask = additive(hidden_keys(positions, self._end, window), query.dtype)
        if len(positions) == self.size:  # all pieces together would be what pieces are there to avoid
            self._masks[window] = mask
        return mask


class Pack:
    """The tokens of one step, part by part."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._sizes = [part.size for part in parts]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, kind: Kind) -> Tensor:
        """Attend in one layer. query, key, value and the result: `[1, tokens, heads, width]`."""
        if len(self._parts) == 1:
            return self._parts[0].attend(layer, query, key, value, kind)
        queries, keys, values = (x.split_with_sizes(self._sizes, 1) for x in (query, key, value))
        each = zip(self._parts, queries, keys, values, strict=True)
        return torch.cat([part.attend(layer, q, k, v, kind) for part, q, k, v in each], 1)


@contextmanager
def attending(step: Any) -> Iterator[None]:
    """Within the context, models that this thread calls attend through `step` (a Pack, or whatever has its method)."""
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
    """Attend as transformers asks. The parts make the mask; `verify` checks once that no other keywords matter."""
    kind = Kind(scaling, sliding_window, softcap, s_aux)
    by_token = [x.transpose(1, 2) for x in (query, key, value)]
    return _thread.step.attend(module.layer_idx, *by_token, kind), None


AttentionInterface.register(NAME, packed_attention)
