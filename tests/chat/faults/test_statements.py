"""Every statement to the database fails in every way: each turn ends once, in both stores, and no other is touched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar
from uuid import uuid4

import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.test import override_settings

from chat.cluster.heartbeat import Heartbeat
from chat.history.history import History
from chat.models import Generation
from chat.streams.hub import Hub
from chat.turns import checkpoints
from chat.turns import turn as turn_module
from chat.turns.registry import Turns
from llm.events import Delta, Finished, Started
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import ScriptedController
from tests.chat.faults.seam import Contract, Fault, Seam
from tests.chat.tabs import Tab

pytestmark = pytest.mark.django_db(transaction=True)

MANY = 5
"""Failures after which the walk ends."""

T = TypeVar("T")

FAULTS = (Fault.BREAKS, Fault.REFUSES, Fault.LOST)
STATEMENT = Contract(lambda: OperationalError("away"), faults=frozenset({Fault.BREAKS, Fault.REFUSES}))
COMMIT = Contract(lambda: OperationalError("away"), faults=frozenset({Fault.REFUSES, Fault.LOST}))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(turn_module, "GAP", 0.0)
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


async def in_the_end(doing: Callable[[], Awaitable[T]]) -> T:
    """Try once more what fails."""
    try:
        return await doing()
    except Exception:  # noqa: BLE001 any of the faults
        return await doing()


async def beat(turns: Turns) -> None:
    """End what nobody writes any more, as the next beats of the process would."""
    heart = Heartbeat(lambda generation: turns.hub.transcript(generation) is not None, turns.hub.announce)
    await in_the_end(heart.beat)  # one that cannot reach the database says so in the log alone
    await in_the_end(heart.beat)
    await heart.aclose()


async def stored(turns: Turns) -> None:
    """Wait for the checkpoints that are due."""
    while turns._checkpoints._dirty or turns._checkpoints._storing:  # noqa: ASYNC110 nothing tells
        await asyncio.sleep(0.001)


async def converse(turns: Turns, *, temporary: bool) -> Tab:
    """Ask, watch the answer, and return the tab that shows it, which fails on a second end."""
    visitor, request_id = a_visitor(), uuid4().hex
    asked = [question(visitor, request_id=request_id, temporary=temporary) for _ in range(2)]
    accepted = await in_the_end(lambda: turns.start(asked.pop(0), SamplingParams(), 0.0))
    tab = Tab(turns, visitor)
    await in_the_end(lambda: tab.open(accepted))
    if accepted.new:
        ticket = next(each for each in turns.controller.tickets if not each.cancelled and not each.stream.ended)  # type: ignore[attr-defined]
        await ticket.tell(Started(queue_time=0.0), Delta("a"))
        await tab.until(lambda: tab.text == "a")
        await stored(turns)
        await ticket.tell(Delta("b"), Finished(reason="stop"))
    await tab.until(lambda: tab.ends)
    return tab


async def played(at: int | None = None, fault: Fault | None = None) -> Seam:
    """Have one visitor ask in the tables, and one in a session."""
    seam = Seam(at, fault)
    turns = Turns(ScriptedController(), History(), Hub())
    with pytest.MonkeyPatch.context() as patched:
        for owner, name, contract in (
            (CursorWrapper, "_execute", STATEMENT),
            (CursorWrapper, "_executemany", STATEMENT),
            (BaseDatabaseWrapper, "_commit", COMMIT),
        ):
            patched.setattr(owner, name, seam.called(name, getattr(owner, name), contract))
        async with asyncio.timeout(10):
            tabs = [await converse(turns, temporary=temporary) for temporary in (False, True)]
            await beat(turns)
            await turns.aclose()
    assert all(ticket.cancelled or ticket.stream.ended for ticket in turns.controller.tickets), "a place is left taken"  # type: ignore[attr-defined]
    ends = [(await Generation.objects.aget(visitor=tab.visitor.visitor)).state for tab in tabs]
    assert [tab.ends for tab in tabs] == [[end] for end in ends], "what was told is not what is stored"
    whole = [end == "stop" and tab.text == "ab" for tab, end in zip(tabs, ends, strict=True)]
    assert sum(whole) >= 2 - (at is not None), "others were touched"
    return seam


@override_settings(CHAT_MESSAGES_PER_MINUTE="0")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.lower())
async def test_each_turn_ends_once_whatever_statement_fails(fault: Fault) -> None:
    calls = (await played()).calls
    failures = []
    for at, (name, contract) in enumerate(calls):
        if fault in contract.faults:
            try:
                await played(at, fault)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 the walk goes on
                failures.append(f"{at} {name}: {type(error).__name__} {error}".partition("\n")[0])
                if len(failures) == MANY:
                    break
    assert not failures, "\n".join(failures)
