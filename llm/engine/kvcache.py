"""Keys and values of all sequences: where they lie, how room is made and given back.

A prompt is computed into a Segment of its own, exactly as long as needed. For decode its sequence takes a row in the
Pool of its length class (powers of two): a pool is computed as one batch, as long as its longest row, so that many
short chats do not pay for a long one. Rows are compact (0 to n-1, the last one fills a gap), so that a pool's part of
a step is a plain slice; a sequence that outgrows its class moves up. Pools double when full and halve when three
quarters are empty.

Each layer has tensors of its own (layers may differ in heads and widths). In a pool keys are transposed, `[rows,
kv_heads, key_width, capacity]`, which makes attention over one new token per row two plain matrix products.

Knows neither tokens nor scheduling. Used in the engine's thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST_CLASS = 128


class LayerShape(NamedTuple):
    """What one layer stores of a token."""

    kv_heads: int
    key_width: int
    value_width: int


class Layout(NamedTuple):
    """Shapes of all layers, and where and how their numbers are kept."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def token_bytes(self) -> int:
        numbers = sum(heads * (key + value) for heads, key, value in self.layers)
        return numbers * self.dtype.itemsize


def length_class(tokens: int) -> int:
    """The capacity of the pool for a sequence of that length."""
    return max(SMALLEST_CLASS, 1 << (tokens - 1).bit_length())


class Segment:
    """One sequence in prefill: keys `[kv_heads, capacity, key_width]` and values of each layer."""

    def __init__(self, layout: Layout, capacity: int) -> None:
        self.capacity = capacity
        self.keys = [_empty(layout, (heads, capacity, width)) for heads, width, _ in layout.layers]
        self.values = [_empty(layout, (heads, capacity, width)) for heads, _, width in layout.layers]


class Slot:
    """The seat of one sequence: a segment in prefill, a row of a pool in decode, nothing once it is free."""

    __slots__ = ("length", "pool", "row", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment: Segment | None = segment
        self.pool: Pool | None = None
        self.row = -1
        self.length = 0
        """Tokens whose keys and values are stored."""


class Pool:
    """The sequences of one length class in decode; row i belongs to `slots[i]`."""

    def __init__(self, layout: Layout, capacity: int) -> None:
        self.capacity = capacity
        self.slots: list[Slot] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._layout = layout
        self._rows = 0

    @property
    def rows(self) -> int:
        """How many sequences fit without new memory."""
        return self._rows

    def add(self, slot: Slot) -> int:
        """The row that is now the slot's; what it holds is left to the caller to copy."""
        if len(self.slots) == self._rows:
            self._resize(max(1, self._rows * 2))
        self.slots.append(slot)
        return len(self.slots) - 1

    def remove(self, row: int) -> None:
        """The last row takes the place of the one that leaves."""
        last = self.slots.pop()
        if row < len(self.slots):
            self.copy_row(last.row, self, row, last.length)
            last.row, self.slots[row] = row, last
        if len(self.slots) * 4 <= self._rows:
            self._resize(len(self.slots) * 2)

    def copy_row(self, row: int, target: Pool, target_row: int, length: int) -> None:
        for source, copy in zip(self.keys, target.keys, strict=True):
            copy[target_row, :, :, :length] = source[row, :, :, :length]
        for source, copy in zip(self.values, target.values, strict=True):
            copy[target_row, :, :length] = source[row, :, :length]

    def wipe(self, row: int) -> None:
        """Forget numbers that must not meet anything else: masked out or not, NaN times zero is NaN."""
        for tensor in (*self.keys, *self.values):
            tensor[row].zero_()

    def _resize(self, rows: int) -> None:
        # zeros: what lies beyond the end of a row is multiplied by a probability of zero, so it must be finite
        used, layout = len(self.slots), self._layout
        keys = [_zeros(layout, (rows, heads, width, self.capacity)) for heads, width, _ in layout.layers]
        values = [_zeros(layout, (rows, heads, self.capacity, width)) for heads, _, width in layout.layers]
        for new, old in zip((*keys, *values), (*self.keys, *self.values), strict=False):
            new[:used].copy_(old[:used])
        self.keys, self.values, self._rows = keys, values, rows


class KVCache:
    """All seats. `pools` is in ascending order of length class and has no empty ones."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._pools: dict[int, Pool] = {}
        self._segment_tokens = 0

    @property
    def pools(self) -> Sequence[Pool]:
        return [self._pools[capacity] for capacity in sorted(self._pools)]

    @property
    def allocated_bytes(self) -> int:
        pooled = sum(pool.rows * pool.capacity for pool in self._pools.values())
        return (pooled + self._segment_tokens) * self.layout.token_bytes

    def open(self, tokens: int) -> Slot:
        """A seat for a prompt of that many tokens."""
        slot = Slot(Segment(self.layout, tokens))
        self._segment_tokens += tokens
        return slot

    def settle(self, slot: Slot) -> None:
        """From prefill to decode: the finished segment becomes a row."""
        segment = slot.segment
        if segment is None:
            raise ValueError("only a sequence in prefill can settle")
        pool = self._pool(length_class(slot.length + 1))
        row, end = pool.add(slot), slot.length
        for layer, (keys, values) in enumerate(zip(segment.keys, segment.values, strict=True)):
            pool.keys[layer][row, :, :, :end] = keys[:, :end].transpose(1, 2)
            pool.values[layer][row, :, :end] = values[:, :end]
        slot.pool, slot.row = pool, row
        self._drop_segment(slot)

    def make_room(self, slot: Slot) -> None:
        """For one more token in decode: a full row moves to the next class."""
        pool = slot.pool
        if pool is None:
            raise ValueError("only a sequence in decode can grow")
        if slot.length < pool.capacity:
            return
        larger = self._pool(length_class(slot.length + 1))
        row = larger.add(slot)
        pool.copy_row(slot.row, larger, row, slot.length)
        self._leave(pool, slot.row)
        slot.pool, slot.row = larger, row

    def free(self, slot: Slot, *, wipe: bool = False) -> None:
        """Give the seat back, `wipe` where its numbers may not be finite. Idempotent."""
        if slot.segment is not None:
            self._drop_segment(slot)
        if slot.pool is not None:
            if wipe:
                slot.pool.wipe(slot.row)
            self._leave(slot.pool, slot.row)
            slot.pool, slot.row = None, -1

    def clear(self) -> None:
        """Give everything back; the slots of before must not be used again."""
        self._pools.clear()
        self._segment_tokens = 0

    def _pool(self, capacity: int) -> Pool:
        if capacity not in self._pools:
            self._pools[capacity] = Pool(self.layout, capacity)
        return self._pools[capacity]

    def _leave(self, pool: Pool, row: int) -> None:
        pool.remove(row)
        if not pool.slots:
            del self._pools[pool.capacity]

    def _drop_segment(self, slot: Slot) -> None:
        if slot.segment is not None:
            self._segment_tokens -= slot.segment.capacity
        slot.segment = None


def _empty(layout: Layout, shape: tuple[int, ...]) -> Tensor:
    return torch.empty(shape, dtype=layout.dtype, device=layout.device)


def _zeros(layout: Layout, shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=layout.dtype, device=layout.device)
