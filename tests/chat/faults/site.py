"""A site of two processes in memory, and what three visitors do there, on a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from chat import db
from chat.errors import HistoryUnavailable, RateLimited
from chat.history.values import INTERRUPTED
from chat.streams.hub import Hub
from chat.turns.registry import Turns
from llm.errors import InvalidRequest, Unavailable
from llm.event_stream import EventStream
from llm.events import Delta, Queued, Started
from llm.request import GenerationRequest
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import FaultyLayer, Place, Service
from tests.chat.faults.seam import Contract, Fault, Seam
from tests.chat.memory import MemoryHistory, Row, Tables
from tests.chat.tabs import Tab

SAYS = ("One, ", "two, ", "three.")

LAYER = Contract(ConnectionError, within=None)
HISTORY = Contract(HistoryUnavailable, within=db.SECONDS)
ADMISSION = Contract(lambda: Unavailable("Away."), within=5.0, faults=frozenset(Fault) - {Fault.LOST})
REQUEST = Contract(lambda: InvalidRequest("Out of range."))
LIMITER = Contract(RateLimited)
BEFALLS = {Fault.LEAVES, Fault.ENDS}
RELEASE = Contract(faults=frozenset({Fault.LOST, *BEFALLS}))
"""A place that is not given back is lost, whatever its turn does; the service takes it back when it is not run."""
NOTICE = Contract(faults=frozenset({Fault.BREAKS, *BEFALLS}))


class Line:
    """A channel layer as processes see it; what it calls of its own is none of their calls."""

    def __init__(self, layer: FaultyLayer) -> None:
        self.send, self.receive = layer.send, layer.receive
        self.group_send, self.group_add, self.group_discard = layer.group_send, layer.group_add, layer.group_discard


class Seat(Place):
    """A place at the service, which answers in it once it is run, and lets go some time after it is cancelled."""

    def __init__(self, used: Callable[[Place], bool]) -> None:
        super().__init__()
        self.wasted = False
        """Whether it generated to the end for nobody."""
        self._used = used
        self._answering: asyncio.Task[None] | None = None

    def run(self, request: GenerationRequest) -> EventStream:
        self._answering = asyncio.create_task(self._answer())
        return super().run(request)

    async def _answer(self) -> None:
        self.tell(Queued(position=1, size=1))
        await asyncio.sleep(0.5)
        if not self.ended:
            self.running = True
            self.tell(Started(queue_time=0.5))
        for text in SAYS:
            await asyncio.sleep(1.2)
            if not self.leaving:
                self.tell(Delta(text))
        self.wasted = not self.ended and not self.leaving and not self._used(self)
        self.end("cancelled" if self.leaving else "stop")


class Seats(Service):
    """The service, with places for all."""

    def __init__(self, seam: Seam, used: Callable[[Place], bool]) -> None:
        super().__init__(size=9)
        self._seam = seam
        self._used = used
        seam.into(self, ADMISSION, "admit")

    async def admit(self, visitor: str) -> Place:  # type: ignore[override]
        await asyncio.sleep(0)
        seat = Seat(self._used)
        self._seam.into(seat, REQUEST, "run")
        self._seam.into(seat, RELEASE, "cancel")
        self.places.append(seat)
        return seat


class Visit:
    """Someone who asks until the question is accepted, always with the same id, and watches at both processes."""

    def __init__(self, site: Site, stops: bool) -> None:
        self.visitor = a_visitor()
        self.asking: asyncio.Task[None] | None = None
        self.tabs: list[Tab] = []
        self._site = site
        self._stops = stops
        self._request_id = uuid4().hex

    async def go(self) -> None:
        await asyncio.gather(self._until_done(self._ask, watched=True), self._look_on())
        if self._stops:
            await asyncio.sleep(1.0)
            await self._until_done(self._stop)

    async def _look_on(self) -> None:
        """Open the answer in another tab as soon as it is in the list."""
        while not self._rows:  # noqa: ASYNC110 nothing tells, and it takes no time
            await asyncio.sleep(0.1)
        await self._until_done(lambda: self._open(self._site.home))

    async def _until_done(self, doing: Callable[[], Coroutine[Any, Any, None]], *, watched: bool = False) -> None:
        """Try again what fails, or what ends with a socket that is gone."""
        for _ in range(9):
            trying = asyncio.create_task(doing())
            self.asking = trying if watched else self.asking
            await asyncio.wait([trying])
            if not trying.cancelled() and trying.exception() is None:
                return
            await asyncio.sleep(1.0)
        raise AssertionError("what a visitor asks for is never done") from trying.exception()

    async def _ask(self) -> None:
        home = self._site.home
        await home.start(question(self.visitor, request_id=self._request_id), SamplingParams(), 0.0)
        await self._open(home)
        await self._open(self._site.processes[1])

    async def _open(self, turns: Turns) -> None:
        tab = Tab(turns, self.visitor)
        self._site.seam.into(tab.feed, NOTICE, "set", "notice")
        try:
            await tab.open_generation(self.row.answer.conversation, self.row.id)
        except BaseException:
            tab.feed.close()
            tab.leave()
            raise
        self.tabs.append(tab)

    async def _stop(self) -> None:
        await self._site.processes[1].stop(self.visitor, self.row.id)

    @property
    def _rows(self) -> list[Row]:
        return [row for row in self._site.tables.rows.values() if row.answer.visitor == self.visitor.visitor]

    @property
    def row(self) -> Row:
        """The one that the question has led to."""
        (row,) = self._rows
        return row

    @property
    def outcome(self) -> tuple[str, str, bool]:
        """How the answer ended, with which text, and whether all tabs show just that."""
        for tab in self.tabs:
            tab.take()
        end, text = self.row.state, self.row.text
        return end, text, all(tab.ends == [end] and tab.text == text for tab in self.tabs)


class Site:
    """Two processes over tables in memory and a channel layer. Every call out of them passes `seam`."""

    def __init__(self, seam: Seam) -> None:
        self.seam = seam
        seam.happens = self._befall
        self.tables = Tables()
        self.line = Line(FaultyLayer())
        seam.into(self.line, LAYER, "send", "group_send", "group_add", "group_discard", "receive")
        self.service = Seats(seam, self._used)
        self.processes = [self._process(), self._process()]
        self.visits = [Visit(self, stops) for stops in (False, False, True)]
        self.ending: asyncio.Task[None] | None = None

    @property
    def home(self) -> Turns:
        """Where visitors ask: the first process until it is told to end."""
        return self.processes[0 if self.ending is None else 1]

    async def play(self) -> None:
        """Have three visitors ask, watch their answers, and one of them stop it from elsewhere; then end."""
        beating = asyncio.create_task(self._beat())
        await asyncio.gather(*(visit.go() for visit in self.visits))
        await asyncio.sleep(2 * db.SECONDS + 30)
        if self.ending is None:
            self.ending = asyncio.create_task(self._end(self.processes[0]))
        await self.ending
        await self._end(self.processes[1])
        beating.cancel()
        await asyncio.wait([beating])

    def _process(self) -> Turns:
        history = MemoryHistory(self.tables, uuid4())
        self.seam.into(history, HISTORY, "accepted", "accept", "answer", "owns", "started", "checkpoint", "finish")
        turns = Turns(self.service, history, Hub())
        self.seam.into(turns._limiter, LIMITER, "atake", "agive_back")
        turns.meet(self.line, history.process)
        return turns

    def _befall(self, fault: Fault) -> None:
        if fault is Fault.LEAVES and (asking := self.visits[0].asking):
            asking.cancel()
        if fault is Fault.ENDS and self.ending is None:
            self.ending = asyncio.create_task(self._end(self.processes[0]))

    async def _end(self, turns: Turns) -> None:
        await turns.drain(1.0)
        await turns.aclose()
        await turns.part()

    async def _beat(self) -> None:
        """End the answers that nobody writes any more, as processes do."""
        while True:
            await asyncio.sleep(2.0)
            for row in self.tables.living():
                if all(turns.hub.transcript(row.id) is None for turns in self.processes):
                    self.tables.end(row, INTERRUPTED)

    def _used(self, place: Place) -> bool:
        return any(turn._ticket is place for turns in self.processes for turn in turns._running.values())
