"""KV memory as a budget: reservations fit, change and come back."""

from __future__ import annotations

from llm.control.budget import TokenBudget


def test_budget() -> None:
    budget: TokenBudget[str] = TokenBudget(10)
    assert budget.reserve("a", 7)
    assert not budget.reserve("b", 4)
    assert budget.reserve("a", 6)
    assert budget.reserve("b", 4)
    assert not budget.reserve("a", 7)
    assert budget.reserved == 10
    budget.release("a")
    budget.release("a")
    assert budget.reserved == 4
