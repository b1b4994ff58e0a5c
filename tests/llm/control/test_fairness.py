"""The queue's next visitor is that of the rule, written down as plainly as possible."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm.control.fairness import FairQueue

VISITORS = st.sampled_from(["ada", "bob", "eve"])
CAP = 2


def test_newcomer_starts_at_the_smallest_count_of_the_active() -> None:
    queue: FairQueue[str] = FairQueue()
    for visitor in ("ada", "bob"):
        queue.push(visitor, visitor)
    queue.charge("ada", 1000)
    queue.charge("bob", 500)
    queue.push("eve", "eve")
    assert list(queue.order()) == ["bob", "eve", "ada"]
    queue.charge("bob", 1)
    assert list(queue.order()) == ["eve", "bob", "ada"]


def test_silence_earns_no_privilege() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("ada", "first")
    queue.remove("ada", "first")
    queue.push("bob", "other")
    queue.charge("bob", 300)
    queue.push("ada", "second")
    assert list(queue.order()) == ["other", "second"]


class FairOrder(RuleBasedStateMachine):
    """`waiting`: (arrival, visitor), `served` of the active: the whole state, in the simplest form."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue()
        self.waiting: list[tuple[int, str]] = []
        self.running: list[str] = []
        self.served: dict[str, int] = {}
        self.arrivals = 0

    def active(self, visitor: str) -> None:
        self.served.setdefault(visitor, min(self.served.values(), default=0))

    def forget(self) -> None:
        alive = {visitor for _, visitor in self.waiting} | set(self.running)
        self.served = {visitor: tokens for visitor, tokens in self.served.items() if visitor in alive}

    def ranked(self, waiting: list[tuple[int, str]], running: list[str]) -> list[tuple[int, str]]:
        """The heads of the lines, best first."""
        heads = [min(entry for entry in waiting if entry[1] == visitor) for visitor in {v for _, v in waiting}]
        return sorted(heads, key=lambda head: (running.count(head[1]), self.served[head[1]], head[0]))

    @rule(visitor=VISITORS)
    def push(self, visitor: str) -> None:
        self.active(visitor)
        self.queue.push(visitor, self.arrivals)
        self.waiting.append((self.arrivals, visitor))
        self.arrivals += 1

    @rule()
    def pop(self) -> None:
        heads = [head for head in self.ranked(self.waiting, self.running) if self.running.count(head[1]) < CAP]
        item = self.queue.pop(lambda running: running < CAP)
        assert item == (heads[0][0] if heads else None)
        if heads:
            self.waiting.remove(heads[0])
            self.running.append(heads[0][1])

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def ran(self, data: st.DataObject) -> None:
        visitor = data.draw(st.sampled_from(self.running))
        self.queue.ran(visitor)
        self.running.remove(visitor)
        self.forget()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.waiting))
        self.queue.remove(entry[1], entry[0])
        self.waiting.remove(entry)
        self.forget()

    @rule(visitor=VISITORS, tokens=st.integers(0, 500))
    def charge(self, visitor: str, tokens: int) -> None:
        self.queue.charge(visitor, tokens)
        if visitor in self.served:
            self.served[visitor] += tokens

    @invariant()
    def order_is_the_rule_applied_again_and_again(self) -> None:
        waiting, running, expected = list(self.waiting), list(self.running), []
        while waiting:
            head = self.ranked(waiting, running)[0]
            waiting.remove(head)
            running.append(head[1])
            expected.append(head[0])
        assert list(self.queue.order()) == expected
        assert len(self.queue) == len(self.waiting)


FairOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFairOrder = FairOrder.TestCase
