"""An exception at each call out of the engine, in turn: the sequence concerned ends, once, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from llm.engine import kvcache, prefixes, scheduler, sequence, step
from llm.engine.attention import kernels, packed
from llm.engine.kvcache import SMALLEST_CLASS
from llm.engine.layout import LayerShape, Layout
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.sampling import SamplingParams
from tests.llm.engine.test_step import prompt
from tests.llm.faults import Fault, Faults, Site

MODULES = step, scheduler, kvcache, prefixes, sequence
SURE = (
    *("_ops.", "simple_registry.", "_compile."),  # torch is walked by its operators
    *("contextlib.", "<string>.", "tokens.common_length.<locals>"),  # what the interpreter does
    "scheduler.Scheduler.add",  # appends to a list
)
BOOKS = (
    "scheduler.Scheduler.chunks",
    "scheduler.Scheduler.prefilled",
    "scheduler.Scheduler.remove",
    "scheduler.Batch.sampled",
    "sequence.Sequence.",
    "kvcache.KVCache.pools",
    "kvcache.KVCache.free",
    "kvcache.Pool.leave",
)
"""What says which row is whose: all are cleared if it fails. None of it allocates or computes anything."""
HEADS, WIDTH, VOCABULARY = 2, 4, 300
GREEDY = SamplingParams(temperature=0.0)
DRAWN = SamplingParams(temperature=1.0, top_p=0.9, seed=3, repetition_penalty=1.2, logit_bias={5: 1.0})


class Small:
    """A forward of one layer: what it says depends on all tokens before."""

    layout = Layout((LayerShape(1, WIDTH, WIDTH),), torch.float32, torch.device("cpu"))
    vocabulary = VOCABULARY

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self._queries, self._keys, self._values = (
            torch.randn(VOCABULARY, heads, WIDTH, generator=generator) for heads in (HEADS, 1, 1)
        )
        self._head = torch.randn(HEADS * WIDTH, VOCABULARY, generator=generator)

    def __call__(
        self, tokens: SequenceOf[int], positions: SequenceOf[int], rows: SequenceOf[int], pack: packed.Pack
    ) -> Tensor:
        given = torch.tensor([tokens])
        query, key, value = (table[given] for table in (self._queries, self._keys, self._values))
        return pack.attend(0, query, key, value, kernels.Kind(None))[0, list(rows)].flatten(1) @ self._head


class Played:
    """A run of some sequences: how each ended, and whether all had to be cleared."""

    def __init__(self, faults: Faults) -> None:
        self.engine = Engine(Small(), kv_tokens=1_000, chunk_tokens=40)
        self.ends: dict[str, str] = {}
        self.cleared = False
        self._live: dict[Sequence, str] = {}
        with faults.everywhere(), faults.operators():
            self._play()

    def _play(self) -> None:
        """One ends, one outgrows its class, one leaves in decode and one in prefill, one is a second turn."""
        turn = prompt(9)
        self.add("short", turn, 3, GREEDY, conversation="a", common=4)
        self.add("growing", prompt(SMALLEST_CLASS - 2), 5, GREEDY)
        drawing = self.add("drawing", prompt(20), 30, DRAWN, conversation="b")
        for _ in range(4):
            self.step()
        long = self.add("long", prompt(200), 5, GREEDY)
        self.step()
        self.remove(drawing)
        self.remove(long)
        self.add("second turn", [*turn, *prompt(5)], 3, GREEDY, conversation="a", common=4)
        while self.engine.busy:
            self.step()
        self.add("late", prompt(7), 2, GREEDY)
        while self.engine.busy:
            self.step()

    def add(self, name: str, tokens: list[int], count: int, params: SamplingParams, **more: Any) -> Sequence | None:
        with self.ending(name):
            one = Sequence(tokens, params, max_new_tokens=count, **more)
            self.engine.add(one)
            self._live[one] = name
            return one
        return None

    def step(self) -> None:
        with self.clearing():
            for result in self.engine.step():
                if result.finish is not None:
                    self.end(result.sequence, result.finish)

    def remove(self, one: Sequence | None) -> None:
        if one in self._live:
            with self.clearing():
                self.engine.remove(one)
                self.end(one, "left")

    def end(self, one: Sequence, how: str) -> None:
        name = self._live.pop(one)
        assert name not in self.ends
        self.ends[name] = f"{how} {one.generated}"

    @contextmanager
    def ending(self, name: str) -> Iterator[None]:
        try:
            yield
        except Fault:
            self.ends[name] = "refused"

    @contextmanager
    def clearing(self) -> Iterator[None]:
        """What the thread does when it cannot know who is concerned."""
        try:
            yield
        except Fault:
            self.cleared = True
            self.engine.clear()
            for one in list(self._live):
                self.end(one, "cleared")


def problem(site: Site, expected: dict[str, str]) -> str:
    """Return what is wrong when the call of that place fails; empty if nothing is."""
    faults = Faults(*MODULES, sure=SURE, failing=site)
    played = Played(faults)
    harmed = {name: end for name, end in played.ends.items() if end != expected[name]}
    if not faults.raised:
        return "not reached"
    if played.engine.cache.allocated_bytes:
        return "memory is not free"
    if played.ends.keys() != expected.keys():
        return f"no end for {expected.keys() - played.ends.keys()}"
    if played.cleared:
        return "" if site.within(*BOOKS) else "all had to be cleared"
    return f"{harmed}" if len(harmed) > 1 else ""


@pytest.mark.usefixtures("one_thread")
@torch.inference_mode()
def test_each_call_fails() -> None:
    reference = Faults(*MODULES, sure=SURE)
    expected = Played(reference).ends
    assert [end.split()[0] for end in expected.values()] == ["length", "left", "left", "length", "length", "length"]
    wrong = [f"{site}: {found}" for site in reference.sites if (found := problem(site, expected))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(reference.sites)}", *wrong])
