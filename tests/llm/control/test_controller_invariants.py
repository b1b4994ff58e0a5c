"""Whatever visitors, time and the backend do in whatever order, bounds hold, nobody is forgotten and each ends once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.control.generation import Generation
from llm.errors import Overloaded, VisitorLimit
from llm.event_stream import EventStream
from llm.events import Event, Finished, Started
from tests.llm.scripted import ScriptedBackend, ScriptedJob, request

RUNNING, QUEUED, OWN_RUNNING, OWN_QUEUED = 3, 4, 2, 2
CONTEXT, KV_TOKENS = 10, 18
VISITORS = st.sampled_from(["ada", "bob", "eve"])


class Asked:
    """One admitted request and all that its reader was told."""

    def __init__(self, number: int, visitor: str, ticket: Generation) -> None:
        self.number = number
        self.visitor = visitor
        self.ticket = ticket
        self.stream: EventStream | None = None
        self.events: list[Event] = []
        self.cancelled = False

    def read(self) -> None:
        if self.stream is not None:
            self.events += self.stream._events
            self.stream._events.clear()

    @property
    def ended(self) -> bool:
        return any(isinstance(event, Finished) for event in self.events) or (self.stream is None and self.cancelled)


class Control(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.workers = ThreadPoolExecutor(1)  # one, so that its queue is a barrier
        self.loop.set_default_executor(self.workers)
        self.backend = ScriptedBackend(context=CONTEXT, kv_tokens=KV_TOKENS)
        limits = Settings(
            num_of_concurrent_executions=RUNNING,
            max_queue_size=QUEUED,
            per_visitor_running=OWN_RUNNING,
            per_visitor_queued=OWN_QUEUED,
        )
        self.controller = GenerationController(self.backend, limits)
        self.loop.run_until_complete(self.controller.load())
        self.asked: list[Asked] = []
        self.first: tuple[Generation | None, set[Generation]] = (None, set())
        self.ended_jobs: set[ScriptedJob] = set()

    def settle(self) -> None:
        """Let everything happen that can happen by itself."""

        async def rest() -> None:
            for _ in range(3):
                await asyncio.to_thread(lambda: None)
                for _ in range(5):
                    await asyncio.sleep(0)

        self.loop.run_until_complete(rest())
        for asked in self.asked:
            asked.read()

    def do(self, action: Callable[[], object]) -> None:
        """On the loop, and then all that follows from it."""

        async def act() -> None:
            action()

        self.loop.run_until_complete(act())
        self.settle()

    @property
    def live(self) -> list[Asked]:
        return [asked for asked in self.asked if not asked.ended]

    def jobs(self) -> list[ScriptedJob]:
        return [job for job in self.backend.jobs if job not in self.ended_jobs]

    @rule(visitor=VISITORS)
    def admit(self, visitor: str) -> None:
        stats = self.loop.run_until_complete(self.controller.stats())
        own = sum(asked.visitor == visitor for asked in self.live)
        try:
            ticket = self.loop.run_until_complete(self.controller.admit(visitor))
        except Overloaded:
            free = RUNNING - stats.processing if self.controller._next is not None else 0
            assert stats.waiting == QUEUED + free
        except VisitorLimit:
            assert own >= OWN_QUEUED
        else:
            assert own < OWN_RUNNING + OWN_QUEUED
            self.asked.append(Asked(len(self.asked), visitor, ticket))
        self.settle()

    @precondition(lambda self: any(asked.stream is None for asked in self.live))
    @rule(data=st.data(), need=st.integers(1, CONTEXT))
    def run(self, data: st.DataObject, need: int) -> None:
        asked = data.draw(st.sampled_from([asked for asked in self.live if asked.stream is None]))
        self.do(lambda: setattr(asked, "stream", asked.ticket.run(request(f"{asked.number}:{need}"))))

    @precondition(lambda self: any(asked.stream is None for asked in self.live))
    @rule(data=st.data())
    def run_what_does_not_fit(self, data: st.DataObject) -> None:
        """It hears so at once, wherever it stands."""
        asked = data.draw(st.sampled_from([asked for asked in self.live if asked.stream is None]))
        self.do(lambda: setattr(asked, "stream", asked.ticket.run(request("too long"))))
        assert isinstance(asked.events[-1], Finished)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Any of them, ended or not, also a second time."""
        asked = data.draw(st.sampled_from(self.asked))
        asked.cancelled = True
        self.do(asked.ticket.cancel)

    @precondition(lambda self: self.jobs())
    @rule(data=st.data(), reason=st.sampled_from(["stop", "length", "error"]))
    def end(self, data: st.DataObject, reason: str) -> None:
        job = data.draw(st.sampled_from(self.jobs()))
        self.ended_jobs.add(job)
        self.do(lambda: job.end("cancelled" if job.cancels else reason))  # type: ignore[arg-type]

    @precondition(lambda self: self.jobs())
    @rule(data=st.data())
    def say(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.jobs()))
        self.do(lambda: job.say("x"))

    @invariant()
    def bounds_hold_and_nobody_is_forgotten(self) -> None:
        stats = self.loop.run_until_complete(self.controller.stats())
        assert stats.processing <= RUNNING
        assert stats.waiting <= QUEUED + (RUNNING - stats.processing if self.controller._next is not None else 0)
        assert stats.processing + stats.waiting == len(self.live)
        assert sum(stats.finished.values()) + len(self.live) == stats.accepted == len(self.asked)

    @invariant()
    def each_visitor_keeps_to_the_limit(self) -> None:
        running = Counter(asked.visitor for asked in self.live if asked.ticket in self.controller._running)
        assert all(count <= OWN_RUNNING for count in running.values())
        if sum(running.values()) < RUNNING and self.controller._next is None:
            # memory is not short: whoever waits then, waits because of his own limit
            waiting = {asked.visitor for asked in self.live if asked.ticket not in self.controller._running}
            assert all(running[visitor] == OWN_RUNNING for visitor in waiting)

    @invariant()
    def what_runs_fits_the_memory(self) -> None:
        stats = self.loop.run_until_complete(self.controller.stats())
        needs = [job.need for job in self.jobs()]
        assert sum(needs) <= stats.kv_reserved <= KV_TOKENS
        assert stats.processing or not stats.kv_reserved

    @invariant()
    def nobody_overtakes_who_waits_for_memory(self) -> None:
        running, (first, before) = set(self.controller._running), self.first
        if first is not None and first is self.controller._next:
            assert running <= before
        first = self.controller._next
        if first is not None:  # it waits because it has to
            reserved = self.loop.run_until_complete(self.controller.stats()).kv_reserved
            assert reserved + (CONTEXT if first.need is None else first.need) > KV_TOKENS
        self.first = first, running

    @invariant()
    def each_ends_once_and_says_nothing_after(self) -> None:
        for asked in self.asked:
            ends = [place for place, event in enumerate(asked.events) if isinstance(event, Finished)]
            assert ends in ([], [len(asked.events) - 1])
            assert sum(isinstance(event, Started) for event in asked.events) <= 1

    @invariant()
    def backend_has_no_more_than_the_places(self) -> None:
        assert len(self.jobs()) <= RUNNING

    def teardown(self) -> None:
        for asked in self.asked:
            self.do(asked.ticket.cancel)
        for job in self.jobs():
            self.do(lambda job=job: job.end("cancelled"))  # type: ignore[misc]
        assert self.loop.run_until_complete(self.controller.stats()).processing == 0
        self.loop.run_until_complete(self.controller.aclose())
        self.workers.shutdown()
        self.loop.close()


Control.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestControl = Control.TestCase
