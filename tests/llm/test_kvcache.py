"""The KV cache: rows stay compact, hold what was put in, and memory comes back."""

from __future__ import annotations

import random

import pytest
import torch

from llm.engine.kvcache import SMALLEST_CLASS, KVCache, LayerShape, Layout, Slot, length_class

LAYOUT = Layout((LayerShape(2, 4, 4), LayerShape(1, 6, 3)), torch.float32, torch.device("cpu"))


def fill(cache: KVCache, length: int, mark: float) -> Slot:
    """A settled sequence whose every number is `mark`."""
    slot = cache.open(length)
    assert slot.segment is not None
    for tensor in (*slot.segment.keys, *slot.segment.values):
        tensor.fill_(mark)
    slot.length = length
    cache.settle(slot)
    return slot


def extend(cache: KVCache, slot: Slot, mark: float) -> None:
    """One token of decode."""
    assert slot.pool is not None
    for keys, values in zip(slot.pool.keys, slot.pool.values, strict=True):
        keys[slot.row, :, :, slot.length] = mark
        values[slot.row, :, slot.length] = mark
    slot.length += 1
    cache.make_room(slot)


def assert_holds(slot: Slot, mark: float) -> None:
    assert slot.pool is not None
    assert slot.pool.slots[slot.row] is slot
    assert slot.length < slot.pool.capacity
    for keys, values in zip(slot.pool.keys, slot.pool.values, strict=True):
        assert (keys[slot.row, :, :, : slot.length] == mark).all()
        assert (values[slot.row, :, : slot.length] == mark).all()


@pytest.mark.parametrize(
    ("tokens", "expected"), [(1, 128), (128, 128), (129, 256), (256, 256), (257, 512), (4000, 4096)]
)
def test_length_class(tokens: int, expected: int) -> None:
    assert length_class(tokens) == expected


def test_any_coming_and_going() -> None:
    chance, cache = random.Random(3), KVCache(LAYOUT)
    slots: dict[float, Slot] = {}
    for mark in range(1, 300):
        match chance.choice(["join", "join", "leave", "extend"]):
            case "join":
                slots[mark] = fill(cache, chance.choice([1, 30, 126, 127, 128, 300]), mark)
            case "leave" if slots:
                cache.free(slots.pop(chance.choice(list(slots))))
            case _:
                for number, slot in slots.items():
                    extend(cache, slot, number)
        for number, slot in slots.items():
            assert_holds(slot, number)
        for pool in cache.pools:
            assert [slot.row for slot in pool.slots] == list(range(len(pool.slots)))
            assert len(pool.slots) <= pool.rows < max(2, 4 * len(pool.slots))
    for slot in slots.values():
        cache.free(slot)
    assert cache.allocated_bytes == 0


def test_a_sequence_moves_up_when_it_outgrows_its_class() -> None:
    cache = KVCache(LAYOUT)
    other, slot = fill(cache, 5, 7.0), fill(cache, SMALLEST_CLASS - 2, 9.0)
    assert [pool.capacity for pool in cache.pools] == [SMALLEST_CLASS]
    for _ in range(3):
        extend(cache, slot, 9.0)
    assert [pool.capacity for pool in cache.pools] == [SMALLEST_CLASS, 2 * SMALLEST_CLASS]
    assert_holds(slot, 9.0)
    assert_holds(other, 7.0)


def test_memory_counts_and_comes_back() -> None:
    cache = KVCache(LAYOUT)
    slot = cache.open(10)
    assert cache.allocated_bytes == 10 * LAYOUT.token_bytes == 10 * (2 * 8 + 9) * 4
    cache.free(slot)
    cache.free(slot)
    assert cache.allocated_bytes == 0
    slots = [fill(cache, 10, 1.0) for _ in range(16)]
    assert cache.allocated_bytes == 16 * SMALLEST_CLASS * LAYOUT.token_bytes
    for slot in slots[:14]:
        cache.free(slot)
    assert cache.allocated_bytes == 4 * SMALLEST_CLASS * LAYOUT.token_bytes
    cache.clear()
    assert cache.allocated_bytes == 0


def test_unused_numbers_are_finite() -> None:
    """They meet a probability of zero; NaN would not become zero."""
    cache = KVCache(LAYOUT)
    first, second = fill(cache, 3, float("nan")), fill(cache, 2, 1.0)
    pool = second.pool
    assert pool is not None
    cache.free(first, wipe=True)
    third = fill(cache, 1, 2.0)
    assert third.pool is pool
    assert all(tensor.isfinite().all() for tensor in (*pool.keys, *pool.values))
