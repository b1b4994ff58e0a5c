"""Every call out of turns, streams and cluster fails in every way: each turn ends once, and no other is touched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.test import override_settings

from chat.turns import registry
from chat.turns import turn as turn_module
from tests.chat.clockwork import Clockwork
from tests.chat.faults.seam import Fault, Seam
from tests.chat.faults.site import SAYS, Site

LONGEST = 400.0
"""Seconds of the site's clock in which everything is over: nothing waits for ever."""

MANY = 5
"""Failures after which a walk ends."""

WHOLE = "".join(SAYS)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Most of these faults are told in the log, with a traceback each."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def played(monkeypatch: pytest.MonkeyPatch, at: int | None = None, fault: Fault | None = None) -> Seam:
    """Play it, and check what must hold whatever fails."""
    loop, seam = Clockwork(), Seam(at, fault)
    for module in (turn_module, registry):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))

    async def play() -> Site:
        site = Site(seam)
        async with asyncio.timeout(LONGEST):
            await site.play()
        return site

    try:
        site = loop.run_until_complete(play())
        assert not asyncio.all_tasks(loop), "a task is left behind"
    finally:
        loop.close()
    assert not site.tables.living(), "a row is left under way"
    assert not site.service.held, "a place is left taken"
    assert not any(place.wasted for place in site.service.places), "a place was used for nobody"
    for visit in site.visits:
        end, text, shown = visit.outcome
        assert all(len(tab.ends) == 1 for tab in visit.tabs), "a tab was not told one end"
        if end != "interrupted":
            assert shown, "a tab shows something else than what is stored"
        else:
            assert all(WHOLE.startswith(tab.text) for tab in visit.tabs)
    if fault is not Fault.ENDS:
        untouched = [visit.outcome == ("stop", WHOLE, True) for visit in site.visits[:2]]
        untouched.append(site.visits[2].outcome[0] == "cancelled" and site.visits[2].outcome[2])
        assert sum(untouched) >= 2, "others were touched"
        if fault is None:
            assert all(untouched)
    return seam


@override_settings(CHAT_MESSAGES_PER_MINUTE="0")
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_each_turn_ends_once_and_no_other_is_touched(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = played(monkeypatch).calls
    failures = []
    for at, (name, contract) in enumerate(calls):
        if fault in contract.faults:
            try:
                played(monkeypatch, at, fault)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 the walk goes on
                failures.append(f"{at} {name}: {type(error).__name__} {error}".partition("\n")[0])
                if len(failures) == MANY:
                    break
    assert not failures, "\n".join(failures)
