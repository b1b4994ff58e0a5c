"""Keeps keys and values of all sequences: where they lie, how room is made and given back.

A prompt is computed into a Segment of its own, exactly as long as needed, perhaps behind a Kept, which holds keys and
values of its beginning that were computed before. For decode its sequence takes a row in the Pool of its length class
(powers of two): a pool is computed as one batch, as long as its longest row, so that many short chats do not pay for a
long one. Rows are compact (0 to n-1, the last one fills a gap), so that a pool's part of a step is a plain slice; a
sequence that outgrows its class moves up. On the CPU a row has memory only while it is in use (`llm.engine.blocks`),
and a pool has room for as many rows as `tokens` allows from the start; elsewhere pools double when full, and `shrink`
halves those of which three quarters are empty.

Whatever gives a seat back allocates nothing. Whatever moves a sequence copies first: if there is no memory for it, all
is as it was.

A row of more than `SMALLEST_CLASS` is more than half full: sequences of N tokens take no more memory than 2 N tokens
would (and at least the smallest class each). A prompt that was just computed takes its own once more until it moves.

Each layer has tensors of its own (layers may differ in heads and widths), in a pool `[rows, kv_heads, capacity,
width]`: attention over one new token per row is two plain matrix products. Keys that lie transposed take three times
as long to write and a fifth more to multiply by.

The module knows neither tokens nor scheduling. It is used in the engine's thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from llm.engine.blocks import Block
from llm.engine.layout import Layout

SMALLEST_CLASS = 128
MOST_ROWS = 256
"""The most rows for which a pool has room before it has to be moved to grow."""


def length_class(tokens: int) -> int:
    """Return the capacity of the pool for a sequence of that length."""
    return max(SMALLEST_CLASS, 1 << (tokens - 1).bit_length())


class Kept(NamedTuple):
    """Keys and values `[kv_heads, length, width]` of each layer, for the first tokens of a sequence. Never changed."""

    length: int
    keys: list[Tensor]
    values: list[Tensor]


class Segment:
    """Keys `[kv_heads, capacity, key_width]` and values of each layer, for one sequence in prefill.

    They are those of the tokens that follow the first `start` ones, which are in `base`.
    """

    def __init__(self, layout: Layout, capacity: int, base: Kept | None = None, start: int = 0) -> None:
        self.capacity = capacity
        self.base, self.start = base, start
        tensors = layout.block(capacity).tensors
        self.keys, self.values = tensors[: len(layout.layers)], tensors[len(layout.layers) :]


class Slot:
    """The seat of one sequence: a segment in prefill, a row of a pool in decode, nothing once it is free."""

    __slots__ = ("length", "pool", "row", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment: Segment | None = segment
        self.pool: Pool | None = None
        self.row = -1
        self.length = segment.start
        """Tokens whose keys and values are stored."""


class Pool:
    """The sequences of one length class in decode; row i belongs to `slots[i]`."""

    def __init__(self, layout: Layout, capacity: int, rows: int = 1) -> None:
        self.capacity = capacity
        self.decode = layout.decode
        self.slots: list[Slot] = []
        self._layout = layout
        self._block: Block
        self._resize(rows)

    @property
    def rows(self) -> int:
        """The number of rows that have memory."""
        return len(self.slots) if self._block.grows else self._rows

    def free_row(self) -> int:
        """Return the number of a row that has memory and belongs to nobody: whoever `joins` next has it."""
        if len(self.slots) == self._rows:
            self._resize(self._rows * 2)
        return len(self.slots)

    def join(self, slot: Slot) -> None:
        """Give the slot the row that `free_row` has named."""
        slot.pool, slot.row = self, len(self.slots)
        self.slots.append(slot)

    def leave(self, slot: Slot) -> None:
        """Free the row of a slot; the last row takes its place."""
        last, row = self.slots[-1], slot.row
        if last is not slot:
            self.copy_row(last.row, self, row, last.length)
            last.row, self.slots[row] = row, last
        self.slots.pop()
        slot.pool, slot.row = None, -1
        self._block.give_back(len(self.slots))

    def shrink(self) -> None:
        """Move the rows to half the room, or less, if three quarters are empty."""
        if not self._block.grows and self.slots and len(self.slots) * 4 <= self._rows:
            self._resize(len(self.slots) * 2)

    def copy_row(self, row: int, target: Pool, target_row: int, length: int) -> None:
        for source, copy in zip((*self.keys, *self.values), (*target.keys, *target.values), strict=True):
            copy[target_row, :, :length] = source[row, :, :length]

    def wipe(self, row: int) -> None:
        """Overwrite a row with zeros, because masked numbers are multiplied too: NaN times zero is NaN."""
        for tensor in (*self.keys, *self.values):
            tensor[row].zero_()

    def _resize(self, rows: int) -> None:
        # zeros: what lies beyond the end of a row is multiplied by a probability of zero, so it must be finite
        used, layers = len(self.slots), len(self._layout.layers)
        block = self._layout.block(self.capacity, rows)
        if used:
            for new, old in zip(block.tensors, self._block.tensors, strict=True):
                new[:used].copy_(old[:used])
        self._block, self._rows = block, rows
        self.keys, self.values = block.tensors[:layers], block.tensors[layers:]


class KVCache:
    """All seats, for `tokens` tokens at most (0: not known). `pools` ascend by length class and have no empty ones."""

    def __init__(self, layout: Layout, tokens: int = 0) -> None:
        self.layout = layout
        self._tokens = tokens
        self._pools: dict[int, Pool] = {}
        self._segment_tokens = 0

    @property
    def pools(self) -> Sequence[Pool]:
        return [self._pools[capacity] for capacity in sorted(self._pools)]

    @property
    def allocated_bytes(self) -> int:
        pooled = sum(pool.rows * pool.capacity for pool in self._pools.values())
        return (pooled + self._segment_tokens) * self.layout.token_bytes

    def open(self, tokens: int, base: Kept | None = None, start: int = 0) -> Slot:
        """Return a seat for a prompt of that many tokens, the first `start` of which are in `base`."""
        if base is not None and base.length > 2 * start:  # most of it would be held for nothing
            base = self._copied(base.keys, base.values, start)
        slot = Slot(Segment(self.layout, tokens - start, base, start))
        self._segment_tokens += tokens - start
        return slot

    def settle(self, slot: Slot) -> None:
        """Move a sequence from prefill to decode: its finished segment becomes a row."""
        segment = slot.segment
        if segment is None:
            raise ValueError("only a sequence in prefill can settle")
        pool = self._pool(length_class(slot.length + 1))
        row, start, end = pool.free_row(), segment.start, slot.length
        for layer, (keys, values) in enumerate(zip(segment.keys, segment.values, strict=True)):
            if segment.base is not None:
                pool.keys[layer][row, :, :start] = segment.base.keys[layer][:, :start]
                pool.values[layer][row, :, :start] = segment.base.values[layer][:, :start]
            pool.keys[layer][row, :, start:end] = keys[:, : end - start]
            pool.values[layer][row, :, start:end] = values[:, : end - start]
        self._drop_segment(slot)
        self._join(pool, slot)

    def make_room(self, slot: Slot) -> None:
        """Make room for one more token in decode: a full row moves to the next class."""
        pool = slot.pool
        if pool is None:
            raise ValueError("only a sequence in decode can grow")
        if slot.length < pool.capacity:
            return
        larger = self._pool(length_class(slot.length + 1))
        pool.copy_row(slot.row, larger, larger.free_row(), slot.length)
        self._leave(pool, slot)
        self._join(larger, slot)

    def keep(self, slot: Slot, tokens: int) -> Kept:
        """Return a copy of the first tokens of a sequence in decode."""
        pool, row = slot.pool, slot.row
        if pool is None:
            raise ValueError("only a sequence in decode has what can be kept")
        return self._copied([keys[row] for keys in pool.keys], [values[row] for values in pool.values], tokens)

    def free(self, slot: Slot, *, wipe: bool = False) -> None:
        """Give the seat back; with `wipe`, its numbers may not be finite and are overwritten. Idempotent."""
        self._drop_segment(slot)
        if slot.pool is not None:
            if wipe:
                slot.pool.wipe(slot.row)
            self._leave(slot.pool, slot)

    def shrink(self) -> None:
        """Give back the memory of rows that nobody needs. It takes memory meanwhile."""
        for pool in self._pools.values():
            pool.shrink()

    def clear(self) -> None:
        """Give everything back; the slots of before must not be used again."""
        self._pools.clear()
        self._segment_tokens = 0

    def _copied(self, keys: Sequence[Tensor], values: Sequence[Tensor], tokens: int) -> Kept:
        tensors = self.layout.block(tokens).tensors
        for copy, source in zip(tensors, (*keys, *values), strict=True):
            copy.copy_(source[:, :tokens])
        return Kept(tokens, tensors[: len(keys)], tensors[len(keys) :])

    def _pool(self, capacity: int) -> Pool:
        """Return the pool of that class; a new one is among `pools` when the first sequence has joined it."""
        if (found := self._pools.get(capacity)) is not None:
            return found
        rows = min(MOST_ROWS, 2 * self._tokens // capacity) if self.layout.device.type == "cpu" else 1
        return Pool(self.layout, capacity, max(1, rows))

    def _join(self, pool: Pool, slot: Slot) -> None:
        pool.join(slot)
        self._pools[pool.capacity] = pool

    def _leave(self, pool: Pool, slot: Slot) -> None:
        pool.leave(slot)
        if not pool.slots:
            del self._pools[pool.capacity]

    def _drop_segment(self, slot: Slot) -> None:
        if slot.segment is not None:
            self._segment_tokens -= slot.segment.capacity
        slot.segment = None
