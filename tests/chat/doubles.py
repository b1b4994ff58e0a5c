"""Doubles at the edges of the chat: a controller that does what a test tells it, and a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from uuid import UUID

from chat.history import DatabaseHistory
from chat.records import HistoryUnavailable
from llm.events import Delta, Event, Finished, Stats, Status
from llm.request import GenerationRequest
from llm.stream import EventStream


class ScriptedTicket:
    """A place; the test pushes the events of what runs in it."""

    def __init__(self) -> None:
        self.request: GenerationRequest | None = None
        self.cancelled = False
        self.fails: Exception | None = None
        self.running = asyncio.Event()
        self.stream = EventStream(self.cancel)

    def run(self, request: GenerationRequest) -> EventStream:
        self.request = request
        self.running.set()
        if self.fails is not None:
            raise self.fails
        return self.stream

    def cancel(self) -> None:
        if not self.cancelled:
            self.cancelled = True
            self.stream.push(Finished(reason="cancelled"))

    async def say(self, *texts: str) -> None:
        await self.running.wait()
        for text in texts:
            self.stream.push(Delta(text))

    async def tell(self, *events: Event) -> None:
        await self.running.wait()
        for event in events:
            self.stream.push(event)


class ScriptedController:
    """Gives out tickets, or raises `refuses`; `tickets` are those given, in order."""

    def __init__(self) -> None:
        self.tickets: list[ScriptedTicket] = []
        self.admitted = asyncio.Event()
        self.refuses: Exception | None = None
        self.status = Status(state="ready")
        self.model = "scripted"
        self._callbacks: list[Callable[[Status], None]] = []

    async def admit(self, visitor: str) -> ScriptedTicket:
        if self.refuses is not None:
            raise self.refuses
        self.tickets.append(ScriptedTicket())
        self.admitted.set()
        return self.tickets[-1]

    def on_status(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def become(self, status: Status) -> None:
        self.status = status
        for callback in self._callbacks:
            callback(status)

    async def stats(self) -> Stats:
        if self.refuses is not None:
            raise self.refuses
        return Stats(state="ready", model=self.model, processing=2, waiting=1, max_processing=2, max_waiting=5)

    async def aclose(self) -> None:
        return None


class FailingHistory(DatabaseHistory):
    """A database that is away for the next `failures` writes; `checkpoints` are those it has stored."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.checkpoints: asyncio.Queue[dict[UUID, str]] = asyncio.Queue()

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        if self.failures:
            self.failures -= 1
            raise HistoryUnavailable
        gone = await super().checkpoint(texts)
        self.checkpoints.put_nowait(dict(texts))
        return gone

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        if self.failures:
            self.failures -= 1
            raise HistoryUnavailable
        return await super().finish(generation, text, end)


class Timers:
    """A clock that stands still: timers run until they are cancelled or the test lets them ring."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []

    @property
    def running(self) -> list[float]:
        """For how long each of them was set."""
        return [timer.seconds for timer in self._timers if not timer.cancelled]

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self._timers.append(Timer(seconds, callback))
        return self._timers[-1]

    def ring(self) -> None:
        for timer in self._timers:
            if not timer.cancelled:
                timer.cancel()
                timer.callback()


class Timer:
    """What `call_later` gives out."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self.seconds = seconds
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
