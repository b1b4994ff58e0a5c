"""An exception at each call out of load control, in turn: each request ends once, and nothing is lost to the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest

from llm.backends.base import Emit
from llm.conf import Settings
from llm.control import budget, controller, fairness, generation, waits
from llm.control.controller import GenerationController
from llm.errors import RequestError
from llm.events import Delta, Event, Finished
from tests.llm.faults import Fault, Faults, Site
from tests.llm.scripted import ScriptedBackend, ScriptedJob, ScriptedPrompt, request

MODULES = controller, generation, fairness, budget, waits
BOOKS = (
    "fairness.",
    "budget.",
    "waits.",
    "controller.GenerationController._start_next",
    "controller.GenerationController.give_back",
)
"""Where a failure may leave places that nobody can have: the controller is down then, and its process ends."""
SURE = (
    "contextlib.",
    "events.TimerHandle.cancel",
    "base_events.BaseEventLoop.call_soon",  # the loop could not wake anybody
    "controller.GenerationController.give_back",
)
"""Calls that do not fail, whatever happens; the calls within the last one are walked themselves."""
EXPECTED = {
    "ada": "stop None onetwo",
    "bob": "cancelled None one",
    "eve": "stop None onetwo",
    "dan": "cancelled None ",
    "fay": "stop None onetwo",
}


class Reader:
    """Asks one thing and notes what it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.events: list[Event] = []
        self.refused = False
        self.ticket: generation.Generation | None = None

    async def ask(self, controller: GenerationController, text: str) -> None:
        try:
            self.ticket = await controller.admit(self.name)
            self.ticket.run_into(request(text), self.take)
        except (Fault, RequestError):
            self.refused = True

    def take(self, event: Event) -> None:
        self.events.append(event)

    @property
    def ended(self) -> bool:
        return self.refused or (self.ticket is not None and self.ticket.task is not None and self.ticket.task.done())

    def cancel(self) -> None:
        if self.ticket is not None:
            self.ticket.cancel()

    @property
    def outcome(self) -> str:
        """How it ended, once, and after what text. A reader who cannot take even the end has none."""
        ends = [event for event in self.events if isinstance(event, Finished)]
        assert len(ends) <= (0 if self.refused else 1), self.events
        assert ends == self.events[-1:] if ends else True
        text = "".join(event.text for event in self.events if isinstance(event, Delta))
        return f"{ends[0].reason} {ends[0].code} {text}" if ends else "refused" if self.refused else "untold"


class Stage(ScriptedBackend):
    """A backend that says two pieces of each answer when the curtain is up, and ends it."""

    def __init__(self) -> None:
        super().__init__(kv_tokens=100)
        self.curtain = asyncio.Event()
        self.said: dict[str, Callable[[], None]] = {}
        """What happens when an answer has said its first piece."""
        self._playing: set[asyncio.Task[None]] = set()

    def start(self, prepared: ScriptedPrompt, emit: Emit) -> ScriptedJob:
        job = super().start(prepared, emit)
        self._playing.add(asyncio.create_task(self._play(job)))
        return job

    async def _play(self, job: ScriptedJob) -> None:
        await self.curtain.wait()
        job.say("one")
        self.said.get(job.prompt, lambda: None)()
        await asyncio.sleep(0)
        if not job.cancels:
            job.say("two")
        job.end("cancelled" if job.cancels else "stop")


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 it is about several objects, and about none that it could ask
        await asyncio.sleep(0.001)


class Played(NamedTuple):
    outcomes: dict[str, str]
    down: bool


async def play(faults: Faults) -> Played:
    """Five people for two places: one is cancelled while it runs, one while it waits; the last one comes afterwards."""
    stage = Stage()
    control = GenerationController(stage, Settings(num_of_concurrent_executions=2, max_queue_size=4))
    await control.load()
    closing: list[asyncio.Task[None]] = []
    done = control.on_status(
        lambda status: closing.append(asyncio.create_task(control.aclose())) if not closing else None
    )
    ada, bob, eve, dan, fay = readers = [Reader(name) for name in ("ada", "bob", "eve", "dan", "fay")]
    stage.said["bob"] = lambda: bob.cancel()
    with faults.everywhere():
        for reader in (ada, bob, eve, dan):
            await reader.ask(control, f"{reader.name}:30")
        dan.cancel()
        await until(lambda: len(stage.jobs) == 2 or ada.ended or bob.ended or bool(closing))
        stage.curtain.set()
        await until(lambda: all(reader.ended for reader in (ada, bob, eve, dan)))
        await fay.ask(control, "fay:30")
        await until(lambda: fay.ended)
    await until(lambda: bool(closing) or not (control._running or control._waiting or control._memory.reserved))
    done()
    await (closing[0] if closing else control.aclose())
    return Played({reader.name: reader.outcome for reader in readers}, bool(closing))


def played(faults: Faults) -> Played:
    async def in_time() -> Played:
        async with asyncio.timeout(10):
            return await play(faults)

    return asyncio.run(in_time())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_each_call_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "RUN_WITHIN", 0.05)
    monkeypatch.setattr(controller, "TELL_EVERY", 0.0)
    reference = Faults(*MODULES, sure=SURE)
    expected = played(reference)
    assert expected == Played(EXPECTED, down=False)
    wrong = [f"{site}: {found}" for site in reference.sites if (found := problem(site))]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(reference.sites)}", *wrong])


def problem(site: Site) -> str:
    """Return what is wrong when the call of that place fails; empty if nothing is."""
    faults = Faults(*MODULES, sure=SURE, failing=site)
    try:
        outcomes, down = played(faults)
    except (TimeoutError, Fault, AssertionError) as error:
        return repr(error)
    harmed = {name: outcome for name, outcome in outcomes.items() if outcome != EXPECTED[name]}
    if not faults.raised:
        return "not reached"
    if down:
        return "" if site.within(*BOOKS) else "down"
    return f"{harmed}" if len(harmed) > 1 or "untold" in harmed.values() and not site.callee.endswith("take") else ""
