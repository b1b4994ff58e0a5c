"""Whatever is asked and cancelled, answers are those without reuse, nobody gets another's, and memory is bounded."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm.engine import verify
from llm.engine.kvcache import SMALLEST_CLASS
from llm.engine.model_runner import PackedModel
from llm.engine.prefixes import OPERATOR
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.tokens import common_length
from tests.llm.engine.test_step import prompt, sequence
from tests.llm.models import tiny

KV_TOKENS = 400
LONGEST = 6
"""Tokens of an answer."""
OPENINGS = ([], prompt(14), prompt(14)[:6] + prompt(5, seed=1))
TEXTS = (prompt(3), prompt(12), prompt(12)[:5] + prompt(7, seed=2), prompt(60, seed=3))
"""Few, so that different visitors say the same."""


@functools.cache
def forward() -> PackedModel:
    """In numbers so fine that the order of sums chooses no other token."""
    return verify.packed(tiny().double())


@functools.cache
def alone(tokens: tuple[int, ...]) -> list[int]:
    """The answer of an engine that never saw anything else."""
    engine, one = Engine(forward()), sequence([*tokens], LONGEST)
    engine.add(one)
    while engine.busy:
        engine.step()
    return one.generated


class Reuse(RuleBasedStateMachine):
    """Of several visitors; whoever calls the engine sees to it that what runs has the memory it needs."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = Engine(forward(), kv_tokens=KV_TOKENS, chunk_tokens=11)
        self.running: list[Sequence] = []
        self.said: dict[str, list[list[int]]] = {}
        """All that each conversation has had computed; the operator's openings too."""
        self.histories: dict[str, list[int]] = {}

    @rule(
        conversation=st.sampled_from(["ada", "bob", "eve", ""]),
        opening=st.sampled_from(OPENINGS),
        text=st.sampled_from(TEXTS),
        kept=st.integers(0, 120),
        count=st.integers(1, LONGEST),
    )
    def ask(self, conversation: str, opening: list[int], text: list[int], kept: int, count: int) -> None:
        """After the first `kept` tokens of what the conversation had: it goes on, is edited, or begins again."""
        history = self.histories.get(conversation, opening)[:kept]
        common = common_length(opening, history + text)
        one = sequence(history + text, count, conversation=conversation, common=common)
        while sum(each.need for each in self.running) + one.need > KV_TOKENS:
            self.steps(1)
        self.add(one)

    @rule(conversation=st.sampled_from(["ada", "bob", "eve"]), text=st.sampled_from(TEXTS))
    def go_on(self, conversation: str, text: list[int]) -> None:
        self.ask(conversation, OPENINGS[1], text, 120, LONGEST)

    @torch.inference_mode()
    def add(self, one: Sequence) -> None:
        own, operators = self.said.get(one.conversation, []), self.said.get(OPERATOR, [])
        self.engine.add(one)
        mine = [common_length(tokens, one.prompt[:-1]) for tokens in (own if one.conversation else []) + operators]
        assert one.cached <= max(mine, default=0), "somebody else's"
        self.said.setdefault(OPERATOR, []).append(one.prompt[: one.common])
        self.running.append(one)

    @precondition(lambda self: self.running)
    @rule(count=st.integers(1, 9))
    def go(self, count: int) -> None:
        self.steps(count)

    @torch.inference_mode()
    def steps(self, count: int) -> None:
        for _ in range(count):
            for result in self.engine.step():
                if result.finish is not None:
                    self.ended(result.sequence)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    @torch.inference_mode()
    def cancel(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(range(len(self.running))))
        self.engine.remove(self.running[one])
        self.ended(self.running[one])

    def ended(self, one: Sequence) -> None:
        self.running.remove(one)
        assert one.generated == alone(tuple(one.prompt))[: len(one.generated)]
        tokens = one.prompt + one.generated
        self.histories[one.conversation] = tokens
        if one.conversation:
            self.said.setdefault(one.conversation, []).append(tokens)

    @invariant()
    def memory_is_bounded(self) -> None:
        """What is kept and what is needed are no more than there is, and nothing else is in memory for long."""
        cache, prefixes = self.engine.cache, self.engine._prefixes
        needed = sum(one.need for one in self.running)
        assert prefixes.tokens == sum(prefix.kept.length for prefix in prefixes._prefixes.values())
        assert prefixes.tokens + needed <= KV_TOKENS
        begun = [(one, one.seat.segment) for one in self.running if one.seat.segment is not None]
        bases = {id(segment.base): segment.base.length for _, segment in begun if segment.base is not None}
        held = cache.allocated_bytes // cache.layout.token_bytes + sum(bases.values())
        assert held <= 2 * needed + SMALLEST_CLASS * len(self.running)
        assert all(segment.base is None or segment.base.length <= 2 * one.cached for one, segment in begun)

    def teardown(self) -> None:
        while self.running:
            self.steps(1)
        assert self.engine.cache.allocated_bytes == 0


Reuse.TestCase.settings = settings(max_examples=60, stateful_step_count=25)
TestReuse = pytest.mark.timeout(300)(Reuse.TestCase)
