"""Two processes of one site over tables in memory and a channel layer, on a clock of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from django.test import override_settings
from hypothesis import strategies as st

from chat.errors import HistoryUnavailable, NothingToContinue, Restarting, TurnInProgress
from chat.history.values import INTERRUPTED, Accepted, Asked, Continue, Redo
from chat.streams.hub import Hub
from chat.streams.transcript import Transcript
from chat.turns import registry
from chat.turns import turn as turn_module
from chat.turns.registry import Turns
from llm.errors import Overloaded, Unavailable
from tests.chat.clockwork import Clockwork
from tests.chat.conftest import a_visitor
from tests.chat.doubles import FaultyLayer, Place, Service
from tests.chat.memory import MemoryHistory, Row, Tables
from tests.chat.tabs import Tab

T = TypeVar("T")

LIVE = ("queued", "running")
PLACES = 3
VISITORS = [a_visitor(), a_visitor()]


class Process:
    """One of the site's."""

    def __init__(self, service: Service, tables: Tables, layer: FaultyLayer) -> None:
        self.id = uuid4()
        self.turns = Turns(service, MemoryHistory(tables, self.id), Hub())
        self.turns.meet(layer, self.id)
        self.draining: asyncio.Task[None] | None = None

    def running(self) -> dict[UUID, bool]:
        """Whose task goes on, and whether that is only the storing of its end."""
        return {turn.generation: turn.ending for turn in self.turns._running.values()}


@dataclass
class Turn:
    """One accepted message: its place at the service, those who watch it."""

    asked: Asked
    accepted: Accepted
    place: Place
    tabs: list[Tab] = field(default_factory=list)


class Model:
    """What the visitors, the service, the database and the processes of a site are, and what is known of each turn."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Clockwork()
        self.patched = pytest.MonkeyPatch()
        for module in (turn_module, registry):
            self.patched.setattr(module, "time", SimpleNamespace(monotonic=self.loop.time))
        self.limits = override_settings(CHAT_MESSAGES_PER_MINUTE="0", CHAT_UNWATCHED_SECONDS="120")
        self.limits.enable()
        self.tables, self.service, self.layer = Tables(), Service(PLACES), FaultyLayer()
        self.mended = True
        self.outage = 0.0
        self.given_up: set[UUID] = set()
        self.step = 0
        self.due: list[tuple[int, Callable[[], None]]] = []
        self.turns: dict[UUID, Turn] = {}
        self.processes = [self.do(self.process()) for _ in range(2)]

    async def process(self) -> Process:
        return Process(self.service, self.tables, self.layer)

    def do(self, doing: Coroutine[Any, Any, T]) -> T:
        """And then all that follows from it at once."""
        done = self.loop.run_until_complete(doing)
        self.pass_time(1e-6)
        return done

    def call(self, function: Callable[[], object]) -> None:
        """On the loop, as `do`."""

        async def called() -> None:
            function()

        self.do(called())

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for turn in self.turns.values():
            for tab in turn.tabs:
                tab.take()

    def later(self, steps: int, function: Callable[[], None]) -> None:
        self.due.append((self.step + steps, function))

    def service_comes_back(self) -> None:
        self.service.down = False

    def database_comes_back(self) -> None:
        self.tables.away = False
        self.outage = 0.0

    def of(self, row: Row) -> Process | None:
        return next((process for process in self.processes if process.id == row.process), None)

    def transcript(self, row: Row) -> Transcript | None:
        process = self.of(row)
        return process.turns.hub.transcript(row.id) if process else None

    def row(self, turn: Turn) -> Row:
        return self.tables.rows[turn.accepted.generation]

    def pick(self, data: st.DataObject) -> Turn:
        return data.draw(st.sampled_from(list(self.turns.values())))

    def refusal(self, process: Process, asked: Asked) -> type[Exception] | None:
        """What a message is refused with, None if it is not."""
        if self.tables.away:
            return HistoryUnavailable
        if process.turns.hub.restarting:
            return Restarting
        if self.service.down:
            return Unavailable
        if len(self.service.held) == PLACES:
            return Overloaded
        conversation, text, last = self.about(asked)
        if isinstance(asked, Continue) and last not in LIVE and (not text or last == "stop"):
            return NothingToContinue
        if any(row.answer.conversation == conversation for row in self.tables.living()):
            return TurnInProgress
        return HistoryUnavailable if self.tables.loses else None

    def about(self, asked: Asked) -> tuple[UUID | None, str, str]:
        if isinstance(asked, Redo | Continue):
            answer = self.tables.answers[asked.answer]
            last = [row for row in self.tables.rows.values() if row.answer is answer][-1]
            return answer.conversation, answer.text, last.state
        return asked.conversation, "", ""

    def close(self, turn: Turn, tab: Tab) -> None:
        turn.tabs.remove(tab)
        self.call(tab.feed.close)
        self.call(tab.leave)

    async def end(self, process: Process) -> None:
        if process.draining is not None:
            await process.draining
        await process.turns.aclose()
        await process.turns.part()

    def went_on(self, row: Row) -> bool:
        """Its answer has more by now than it wrote, which is what its row is read with."""
        return [each for each in self.tables.rows.values() if each.answer is row.answer][-1] is not row

    def home(self, row: Row) -> Turns | None:
        process = self.of(row)
        return process.turns if process else None

    def beat(self) -> None:
        """What a process does that finds rows nobody writes."""
        for row in self.tables.living():
            if self.transcript(row) is None:
                self.tables.end(row, INTERRUPTED)
