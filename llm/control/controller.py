"""Decides who may generate, who waits and who is refused.

The GenerationController owns the two numbers the original named: `num_of_concurrent_executions` running places and
`max_queue_size` places in the queue. Both are exact. No visitor holds more than `per_visitor_running` of the first and
`per_visitor_queued` of the second; `llm.control.fairness` orders the others. Admission looks at places only and
decides at once, before any templating or tokenising.

Memory is counted apart from places: all running requests share `kv_tokens` token places. When a running place is free
the next request in order is fixed. It gets the place once the memory it needs is free too; until then nobody overtakes
it. A request whose prompt was not counted yet is taken for the largest possible.

What fails in one request ends that request (`llm.control.generation`). A fault in what the controller itself counts by
would leave places that nobody can have: it is `down` from then on, as it is when the backend has died.

The controller knows one backend and no sockets; `llm.service.server` puts it behind one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from llm.backends.base import Backend
from llm.conf import Settings
from llm.control.budget import TokenBudget
from llm.control.fairness import FairQueue
from llm.control.generation import Clock, Generation, Place
from llm.control.waits import ServiceTime, expected_waits
from llm.errors import ConfigurationError, Overloaded, Unavailable, VisitorLimit
from llm.events import Stats, Status
from llm.status import ModelStatus

log = logging.getLogger(__name__)

TELL_EVERY = 0.25
"""Seconds between two announcements of places: a queue that moves fast is not worth a frame for each step."""

RETRY_UNKNOWN = 5.0
"""Seconds after which a refused visitor should try again while no service time was measured yet."""


class GenerationController(ModelStatus):
    """Gives out the places of one event loop. No await lies between a check of the places and the reservation."""

    def __init__(self, backend: Backend, limits: Settings, clock: Clock = time.monotonic) -> None:
        super().__init__()
        self._backend = backend
        self._limits = limits
        self._max_running = limits.num_of_concurrent_executions
        self._max_queued = limits.max_queue_size
        self._clock = clock
        self._running: set[Generation] = set()
        self._waiting: FairQueue[Generation] = FairQueue()
        self._next: Generation | None = None
        """The request chosen for a free place that waits for memory: neither queued any more nor running yet."""
        self._memory: TokenBudget[Generation] = TokenBudget(0)
        self._largest_need = 0
        self._service_time = ServiceTime()
        self._totals: Counter[str] = Counter()
        self._finished: Counter[str] = Counter()
        self._telling: asyncio.TimerHandle | None = None
        self._told_at = -TELL_EVERY
        self._mode = ""
        self._longest_step = 0.0

    async def load(self) -> None:
        """Load the model; until it is loaded nobody is admitted. Raises ConfigurationError."""
        loop = asyncio.get_running_loop()

        def progress(message: str, fraction: float | None) -> None:
            percent = None if fraction is None else round(fraction, 2)  # finer steps are not worth a frame
            status = Status(state="loading", progress=percent, message=message)
            loop.call_soon_threadsafe(self._report, status)

        try:
            info = await self._backend.load(progress, self._die)
        except ConfigurationError as error:
            self._set_status(Status(state="failed", message=str(error)))
            raise
        self.model, self._mode = info.name, info.mode
        self.defaults = msgspec.structs.replace(info.sampling, max_new_tokens=self._limits.max_new_tokens)
        self._max_running = min(self._max_running, info.places or self._max_running)
        self._memory, self._largest_need = TokenBudget(info.kv_tokens), info.largest_need
        self._longest_step = info.longest_step
        self._set_status(Status(state="ready"))

    @property
    def loaded(self) -> bool:
        return self.status.state == "ready"

    @property
    def moves(self) -> int | None:
        """A count that changes with every step; None while nothing is computed (llm.service.watchdog.Work)."""
        return self._backend.steps if any(generation.computed for generation in self._running) else None

    @property
    def stall_seconds(self) -> float:
        return max(self._limits.stall_seconds, self._longest_step)

    async def admit(self, visitor: str) -> Generation:
        if self.status.state != "ready":
            raise Unavailable("The model is not ready yet.", retry_after=RETRY_UNKNOWN)
        try:
            self._check_places(visitor)
        except (Overloaded, VisitorLimit):
            self._totals["refused"] += 1
            raise
        generation = Generation(self._backend, visitor, self, self._limits, self._clock)
        self._waiting.push(visitor, generation)
        generation.place = Place.WAITING
        self._totals["accepted"] += 1
        self._start_next()
        if generation.place is Place.WAITING:
            self._announce()
        return generation

    async def stats(self) -> Stats:
        return Stats(
            state=self.status.state,
            model=self.model,
            mode=self._mode,
            processing=len(self._running),
            waiting=self._waiting_count,
            max_processing=self._max_running,
            max_waiting=self._max_queued,
            accepted=self._totals["accepted"],
            refused=self._totals["refused"],
            finished=dict(self._finished),
            prompt_tokens=self._totals["prompt_tokens"],
            completion_tokens=self._totals["completion_tokens"],
            left_out_turns=self._totals["left_out_turns"],
            kv_tokens=self._memory.tokens,
            kv_reserved=self._memory.reserved,
        )

    async def aclose(self) -> None:
        self._set_status(Status(state="down"))
        generations = [*self._order(), *self._running]
        for generation in generations:
            generation.cancel()
        if tasks := [generation.task for generation in generations if generation.task is not None]:
            await asyncio.wait(tasks)
        if self._telling is not None:
            self._telling.cancel()
        await self._backend.close()

    def _check_places(self, visitor: str) -> None:
        """Raise VisitorLimit or Overloaded if there is no place for this visitor.

        Running places are free only while nobody who may use one waits, or while all wait for memory. In the second
        case as many more may wait as there are free places, so that the bounds are those of places alone.
        """
        free = self._max_running - len(self._running)
        own_free = max(0, self._limits.per_visitor_running - self._waiting.running(visitor))
        room, own_room = self._max_queued, self._limits.per_visitor_queued
        if self._next is not None:
            room, own_room = room + free, own_room + own_free
        elif free and own_free:
            return
        waiting, own_waiting = self._waiting_count, self._waiting.waiting(visitor)
        retry_after = self._waits(1)[0] or RETRY_UNKNOWN
        may_wait = bool(own_room and self._max_queued)  # else it is what this visitor has running that is too much
        if (own_waiting and own_waiting >= own_room) or not (may_wait or own_free):
            raise VisitorLimit("You have as many answers under way as one visitor may.", retry_after=retry_after)
        if waiting >= room or not own_room:
            raise Overloaded(
                f"{len(self._running)} answers are under way and {waiting} are waiting: no more can be taken.",
                retry_after=retry_after,
                queue_size=waiting,
            )

    @property
    def _waiting_count(self) -> int:
        return len(self._waiting) + (self._next is not None)

    def _order(self) -> Iterator[Generation]:
        """Yield all waiting requests, the next one first."""
        if self._next is not None:
            yield self._next
        yield from self._waiting.order()

    def _may_run(self, running: int) -> bool:
        return running < self._limits.per_visitor_running

    # What a generation calls (llm.control.generation.Owner)

    def give_back(self, generation: Generation) -> None:
        """Free the place of `generation`. Idempotent, because a cancel and the end may both come."""
        place, generation.place = generation.place, Place.NONE
        if place is Place.NONE:
            return
        with self._counting():
            self._free(generation, place)
            self._count(generation)
            self._start_next()
            self._announce()

    def _free(self, generation: Generation, place: Place) -> None:
        if generation is self._next:
            self._next = None
            self._waiting.ran(generation.visitor)
        elif place is Place.WAITING:
            self._waiting.remove(generation.visitor, generation)
        else:
            self._running.remove(generation)
            self._memory.release(generation)
            self.charge(generation, generation.usage.prompt_tokens - generation.usage.cached_tokens)
            self._waiting.ran(generation.visitor)
            if generation.started_at is not None:
                self._service_time.record(self._clock() - generation.started_at)

    def tell_place(self, generation: Generation) -> None:
        position = [*self._order()].index(generation) + 1
        generation.tell_place(position, self._waiting_count, self._waits(position)[-1])

    def charge(self, generation: Generation, tokens: int) -> None:
        self._waiting.charge(generation.visitor, tokens)

    def prepared(self, generation: Generation) -> None:
        need = self._need(generation)
        if need > self._largest_need:
            raise ValueError(f"a request that needs {need} token places, of at most {self._largest_need}")
        if generation.place is Place.RUNNING:
            self._memory.reserve(generation, need)
        self._start_next()
        if self._waiting_count:  # some of them may have come closer
            self._announce()

    def _start_next(self) -> None:
        """Give free places to the next requests in order, as far as there is memory."""
        with self._counting():
            while len(self._running) < self._max_running:
                self._next = generation = self._next or self._waiting.pop(self._may_run)
                if generation is None or not self._memory.reserve(generation, self._need(generation)):
                    return
                self._next = None
                self._running.add(generation)
                generation.give_place()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Within the context the books of places change: if that fails they are wrong for good, and this is the end."""
        try:
            yield
        except Exception:
            log.exception("places are not counted right any more")
            self._die()

    def _die(self) -> None:
        self._set_status(Status(state="down", message="The model's process has to start again."))

    def _need(self, generation: Generation) -> int:
        return self._largest_need if generation.need is None else generation.need

    def _count(self, generation: Generation) -> None:
        self._finished[generation.outcome or "cancelled"] += 1
        self._totals["prompt_tokens"] += generation.usage.prompt_tokens
        self._totals["completion_tokens"] += generation.usage.completion_tokens
        self._totals["left_out_turns"] += generation.usage.left_out_turns

    def _waits(self, waiting: int) -> list[float | None]:
        mean = self._service_time.mean
        if mean is None:
            return [None] * waiting
        now = self._clock()
        held = [0.0 if g.started_at is None else now - g.started_at for g in self._running]
        return [*expected_waits(held, mean, waiting)]

    def _announce(self) -> None:
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_at(max(loop.time(), self._told_at + TELL_EVERY), self._tell)

    def _tell(self) -> None:
        self._telling = None
        self._told_at = asyncio.get_running_loop().time()
        order = [*self._order()]  # one that cannot be told leaves it
        for position, (generation, wait) in enumerate(zip(order, self._waits(len(order)), strict=True), start=1):
            generation.tell_place(position, len(order), wait)

    def _report(self, status: Status) -> None:
        if self.status.state == "loading":  # a late report of the loading thread must not undo what came after
            self._set_status(status)
