"""An exception at each call out of the engine's thread, in turn: one generation ends, or the thread and all of them."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest

from llm.engine import thread
from llm.engine.step import Engine
from llm.engine.thread import EngineThread
from tests.llm.engine.test_faults import Small
from tests.llm.engine.test_thread import Watched
from tests.llm.faults import Faults, Site

OWN = (
    "thread.EngineThread._run",
    "thread.EngineThread._obey",
    "thread.EngineThread._deliver",
    "thread.EngineThread._watched",
)
"""What the thread does for nobody in particular: it ends if that fails."""
EVERYBODY = ("step.Engine.step", "step.Engine.remove")
"""What ends all generations, but not the thread: after that nobody knows which memory is whose."""
SURE = ("contextlib.", "<string>.", "base_events.BaseEventLoop.is_closed", "threading.", "enum.")
"""What fails there fails in the test that starts and stops the thread, or not at all."""


class Played(NamedTuple):
    outcomes: dict[str, str]
    died: bool


async def play(faults: Faults) -> Played:
    """Two answers end, one by its length and one by a stop string, one is cancelled; another comes after them."""
    died = asyncio.Event()
    engine = Engine(Small(), chunk_tokens=8)
    short, longer, cancelled, late = Watched(3), Watched(9, length=30), Watched(), Watched(2)
    with faults.everywhere():
        running = EngineThread(engine, asyncio.get_running_loop(), died=died.set, stall_seconds=60)
        for one in (short, longer, cancelled):
            running.start(one.generation)
        await cancelled.first.wait()
        running.cancel(cancelled.generation)
        for one in (short, longer, cancelled):
            await one.ended.wait()
        running.start(late.generation)
        await late.ended.wait()
    await asyncio.to_thread(running.stop)
    assert engine.cache.allocated_bytes == 0
    outcomes = {
        "short": f"{short.finish} {short.text}",
        "longer": f"{longer.finish} {longer.text}",
        "cancelled": f"{cancelled.finish}",
        "late": f"{late.finish} {late.text}",
    }
    return Played(outcomes, died.is_set())


def played(faults: Faults) -> Played:
    async def in_time() -> Played:
        async with asyncio.timeout(5):
            return await play(faults)

    return asyncio.run(in_time())


def problem(site: Site, expected: dict[str, str]) -> str:
    """Return what is wrong when the call of that place fails; empty if nothing is."""
    faults = Faults(thread, sure=SURE, failing=site)
    try:
        outcomes, died = played(faults)
    except (TimeoutError, AssertionError) as error:
        return repr(error)
    if not faults.raised:
        return "not reached"
    if died:
        return "" if site.within(*OWN) else "it died"
    harmed = {name: outcome for name, outcome in outcomes.items() if outcome != expected[name]}
    return f"{harmed}" if len(harmed) > 1 and not site.within(*EVERYBODY) else ""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # at the very end of the thread
@pytest.mark.usefixtures("one_thread")
def test_each_call_fails() -> None:
    reference = Faults(thread, sure=SURE)
    expected, died = played(reference)
    assert not died
    assert [outcome.split()[0] for outcome in expected.values()] == ["length", "length", "cancelled", "length"]
    wrong = [f"{site}: {found}" for site in reference.sites if (found := problem(site, expected))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(reference.sites)}", *wrong])
