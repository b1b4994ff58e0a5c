"""Doubles at the edges of the chat: a controller that does what a test tells it, and a store that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
from channels.layers import InMemoryChannelLayer

from chat.cluster.messages import AnyMessage, decode
from chat.errors import HistoryUnavailable
from chat.history.history import History
from chat.history.values import Accepted, AnswerStore, Asked
from llm.errors import Overloaded, Unavailable
from llm.event_stream import EventStream
from llm.events import Delta, Event, Finished, FinishReason, Stats, Status
from llm.request import GenerationRequest
from llm.sampling import SamplingParams


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
        self.defaults = SamplingParams(temperature=0.5, max_new_tokens=100)
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


class Place:
    """One of the places of `Service`; who runs in it leaves some time after it is cancelled."""

    def __init__(self) -> None:
        self.stream = EventStream(self.cancel)
        self.running = False
        self.leaving = False
        self.ended = False

    def run(self, request: GenerationRequest) -> EventStream:
        return self.stream

    def cancel(self) -> None:
        if self.running:
            self.leaving = True
        else:
            self.end("cancelled")

    def tell(self, event: Event) -> None:
        if not self.ended:
            self.stream.push(event)

    def end(self, reason: FinishReason, code: str | None = None) -> None:
        if not self.ended:
            self.ended = True
            self.stream.push(Finished(reason=reason, code=code))


class Service(ScriptedController):
    """Has so many places; is `down` while a test says so."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.down = False
        self.places: list[Place] = []

    @property
    def held(self) -> list[Place]:
        return [place for place in self.places if not place.ended]

    async def admit(self, visitor: str) -> Place:  # type: ignore[override]
        await asyncio.sleep(0)
        if self.down:
            raise Unavailable("Away.")
        if len(self.held) == self.size:
            raise Overloaded("Full.")
        self.places.append(Place())
        return self.places[-1]


class FailingHistory(History):
    """A database that is away for the next `failures` writes; `checkpoints` are those it has stored."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.checkpoints: asyncio.Queue[dict[UUID, str]] = asyncio.Queue()

    async def accept(self, asked: Asked) -> Accepted:
        accepted = await super().accept(asked)
        if accepted.store is None:
            return accepted
        return msgspec.structs.replace(accepted, store=FailingStore(self, accepted.store))

    async def finish(self, store: AnswerStore, generation: UUID, text: str, end: Finished) -> UUID | None:
        self.fail()
        return await store.finish(generation, text, end)

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise HistoryUnavailable


@dataclass(frozen=True)
class FailingStore:
    """A store of `FailingHistory`, equal to another one of the same store."""

    history: FailingHistory
    store: AnswerStore

    async def started(self, generation: UUID) -> None:
        await self.store.started(generation)

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        self.history.fail()
        gone = await self.store.checkpoint(texts)
        self.history.checkpoints.put_nowait(dict(texts))
        return gone

    async def finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        return await self.history.finish(self.store, generation, text, end)


class FaultyLayer(InMemoryChannelLayer):
    """A channel layer that a test takes away, or has lose messages. `sent` are those it took, as they were sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[AnyMessage] = []
        self.loses: Callable[[AnyMessage], bool] = lambda message: False
        self.there = True
        self._went = asyncio.Event()

    def go(self) -> None:
        """Fail whoever listens, and whoever sends until it is back."""
        self.there = False
        self._went.set()
        self.channels.clear()
        self.groups.clear()

    def come_back(self) -> None:
        self.there = True
        self._went.clear()

    async def send(self, channel: str, message: dict[str, Any]) -> None:
        self._check()
        decoded = decode(message["message"])
        if not self.loses(decoded):
            self.sent.append(decoded)
            await super().send(channel, message)

    async def group_add(self, group: str, channel: str) -> None:
        self._check()
        await super().group_add(group, channel)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        self._check()
        await super().group_send(group, message)

    async def receive(self, channel: str) -> dict[str, Any]:
        self._check()
        receiving = asyncio.create_task(super().receive(channel))
        going = asyncio.create_task(self._went.wait())
        try:
            await asyncio.wait({receiving, going}, return_when=asyncio.FIRST_COMPLETED)
            self._check()
            return receiving.result()
        finally:
            receiving.cancel()
            going.cancel()
            await asyncio.gather(receiving, going, return_exceptions=True)

    def _check(self) -> None:
        if not self.there:
            raise ConnectionError("the layer is away")


class Timers:
    """A clock that stands still: timers run until they are cancelled or the test lets them ring."""

    def __init__(self) -> None:
        self._timers: list[Timer] = []
        self._set = asyncio.Event()

    @property
    def running(self) -> list[float]:
        """For how long each of them was set."""
        return [timer.seconds for timer in self._timers if not timer.cancelled]

    async def some(self) -> list[float]:
        """`running`, once there are any."""
        while not self.running:
            self._set.clear()
            await self._set.wait()
        return self.running

    def later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        self._timers.append(Timer(seconds, callback))
        self._set.set()
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
