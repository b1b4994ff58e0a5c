"""The KV cache: rows stay compact, hold what was put in, and memory comes back."""

from __future__ import annotations

import gc
import random
from collections.abc import Sequence as SequenceOf

import psutil
import pytest
import torch

from llm.engine.blocks import Block
from llm.engine.kvcache import SMALLEST_CLASS, KVCache, Slot, length_class
from llm.engine.layout import LayerShape, Layout

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
    for tensor in (*slot.pool.keys, *slot.pool.values):
        tensor[slot.row, :, slot.length] = mark
    slot.length += 1
    cache.make_room(slot)


def assert_holds(slot: Slot, mark: float) -> None:
    assert slot.pool is not None
    assert slot.pool.slots[slot.row] is slot
    assert slot.length < slot.pool.capacity
    for tensor in (*slot.pool.keys, *slot.pool.values):
        assert (tensor[slot.row, :, : slot.length] == mark).all()


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
            assert pool.rows == len(pool.slots)
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
    assert cache.allocated_bytes == 2 * SMALLEST_CLASS * LAYOUT.token_bytes
    cache.clear()
    assert cache.allocated_bytes == 0


@pytest.mark.parametrize("tokens", [0, 20_000])
def test_memory_that_is_really_taken(tokens: int) -> None:
    """Of sequences that come, grow and go, as the system counts it; never more than twice what they hold."""
    layout = Layout((LayerShape(8, 64, 64),) * 4, torch.float32, torch.device("cpu"))
    process, slack = psutil.Process(), 8 << 20
    cache = KVCache(layout, tokens)
    gc.collect()
    base = process.memory_info().rss
    slots: list[Slot] = []
    for length in (700, 1500, 300, 530, 600, 900, 1100, 140):
        slots.append(fill(cache, length, 1.0))
        taken = process.memory_info().rss - base
        assert taken <= cache.allocated_bytes + slack
        assert cache.allocated_bytes <= 2 * sum(slot.length for slot in slots) * layout.token_bytes
    assert taken > cache.allocated_bytes / 2  # it is the memory that is measured
    kept = cache.keep(slots[1], 1500)
    for slot in slots[:5]:
        cache.free(slot)
    held = cache.allocated_bytes + kept.length * layout.token_bytes
    assert process.memory_info().rss - base <= held + slack
    del kept
    for slot in slots[5:]:
        cache.free(slot)
    assert cache.allocated_bytes == 0
    assert process.memory_info().rss - base <= slack


def test_room_for_many_rows_is_not_moved_to_grow() -> None:
    cache = KVCache(LAYOUT, tokens=16 * SMALLEST_CLASS)
    first = fill(cache, 5, 1.0)
    assert first.pool is not None
    keys = first.pool.keys[0]
    slots = [fill(cache, 5, 2.0) for _ in range(31)]
    assert first.pool.keys[0] is keys
    slots.append(fill(cache, 5, 3.0))  # more than was said
    assert first.pool.keys[0] is not keys
    assert_holds(first, 1.0)
    assert_holds(slots[-1], 3.0)


class Memory:
    """What a device has where rows do not grow by themselves; without `plenty` nothing can be allocated."""

    plenty = True

    def zeros(self, block: Block, shapes: SequenceOf[tuple[int, ...]], dtype: torch.dtype) -> list[torch.Tensor]:
        if not self.plenty:
            raise MemoryError
        return [torch.zeros(shape, dtype=dtype) for shape in shapes]


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    memory = Memory()
    monkeypatch.setattr(Block, "_mapped", lambda *args: memory.zeros(*args))
    return memory


def test_nothing_is_allocated_to_free(memory: Memory) -> None:
    """Rows leave and move to each other's place without memory; with it, what is empty goes, in a call of its own."""
    cache = KVCache(LAYOUT)
    slots = {float(mark): fill(cache, 9, float(mark)) for mark in range(1, 17)}
    memory.plenty = False
    for mark in (2.0, 16.0, 1.0, *(float(mark) for mark in range(5, 16))):
        cache.free(slots.pop(mark))
        for number, slot in slots.items():
            assert_holds(slot, number)
    (pool,) = cache.pools
    assert (pool.rows, len(pool.slots)) == (16, 2)
    with pytest.raises(MemoryError):
        cache.shrink()
    assert pool.rows == 16
    memory.plenty = True
    cache.shrink()
    assert (pool.rows, len(pool.slots)) == (4, 2)
    for number, slot in slots.items():
        assert_holds(slot, number)


def test_a_move_without_memory_leaves_all_as_it_was(memory: Memory) -> None:
    """Out of prefill, and up to the next class, into a pool that is new or one that is full."""
    cache = KVCache(LAYOUT)
    other, full = fill(cache, 9, 1.0), fill(cache, SMALLEST_CLASS - 1, 2.0)
    assert full.pool is not None
    waiting = cache.open(5)
    full.length += 1
    before = [(pool, list(pool.slots)) for pool in cache.pools]
    memory.plenty = False
    for move, slot in ((cache.settle, waiting), (cache.make_room, full)):
        with pytest.raises(MemoryError):
            move(slot)
        assert [(pool, list(pool.slots)) for pool in cache.pools] == before
    for slot in (waiting, full, other):
        cache.free(slot)
    assert (cache.allocated_bytes, list(cache.pools)) == (0, [])


def test_no_memory_for_a_block() -> None:
    with pytest.raises(MemoryError):
        Block([(1 << 50, 1 << 10)], torch.float32, torch.device("cpu"))


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
