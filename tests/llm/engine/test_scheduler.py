"""Whatever prompts come in whatever order, no sequence in decode is left out of a step and no prompt waits for ever."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llm.engine.attention import packed
from llm.engine.layout import LayerShape, Layout
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from tests.llm.engine.test_step import sequence

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=12)
BUDGETS = st.integers(2, 40)


class Noting:
    """Computes nothing, and notes how many rows in decode and which chunks of prompts each step had."""

    layout = Layout((LayerShape(1, 1, 1),), torch.float32, torch.device("cpu"))
    vocabulary = 9

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[int]]] = []

    def __call__(
        self, tokens: SequenceOf[int], positions: SequenceOf[int], rows: SequenceOf[int], pack: packed.Pack
    ) -> Tensor:
        chunks = [part.size for part in pack._parts if isinstance(part, packed.Chunk)]
        self.steps.append((len(tokens) - sum(chunks), chunks))
        return torch.zeros(len(rows), self.vocabulary)


class Steps:
    """Of an engine that takes `budget` tokens of prompts in each; `first` is in which one a sequence began to speak."""

    def __init__(self, budget: int) -> None:
        self.forward = Noting()
        self.engine = Engine(self.forward, chunk_tokens=budget)
        self.budget = budget
        self.first: dict[Sequence, int] = {}

    def add(self, length: int, answer: int = 25) -> Sequence:
        one = sequence([1] * length, answer)
        self.engine.add(one)
        return one

    @torch.inference_mode()
    def next(self) -> None:
        scheduler = self.engine._scheduler
        decoding, waiting = set(scheduler.decoding), sum(one.remaining for one in scheduler.prefilling)
        spoke = {result.sequence for result in self.engine.step()}
        rows, chunks = self.forward.steps[-1]
        assert rows == len(decoding)
        assert spoke >= decoding, "all in decode are in every step"
        assert sum(chunks) == min(waiting, self.budget), "the budget is used, and shared"
        assert all(chunks)
        for one in spoke:
            self.first.setdefault(one, len(self.forward.steps))

    def to_the_end(self) -> None:
        while self.engine.busy:
            self.next()


def steps_of(tokens: int, rate: int) -> int:
    return -(-tokens // rate)


@given(LENGTHS, BUDGETS)
def test_every_prompt_ends_as_soon_as_the_budget_allows(lengths: list[int], budget: int) -> None:
    steps = Steps(budget)
    sequences = [steps.add(length) for length in lengths]
    steps.to_the_end()
    assert max(steps.first[one] for one in sequences) == steps_of(sum(lengths), budget)


@given(LENGTHS, BUDGETS)
def test_a_prompt_waits_for_the_shorter_ones_only(lengths: list[int], budget: int) -> None:
    """Whatever else there is has half of a step at most: a long one that is first, or those that come in between."""
    steps = Steps(budget)
    sequences = [steps.add(length) for length in (1000, *lengths)]
    steps.to_the_end()
    for one in sequences[1:]:
        before = sum(length for length in lengths if length <= len(one.prompt))
        assert steps.first[one] <= steps_of(before, budget - budget // 2)


@given(st.integers(1, 300), st.lists(st.integers(1, 9), min_size=1, max_size=4), BUDGETS)
def test_a_long_prompt_ends_however_many_short_ones_arrive(length: int, short: list[int], budget: int) -> None:
    steps = Steps(budget)
    long = steps.add(length)
    while long not in steps.first:
        for each in short:
            steps.add(each, 1)
        steps.next()
    assert steps.first[long] <= steps_of(length, budget // 2)
