"""Hands the events of one generation from its producer to one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from llm.events import Event, Finished, Queued

Take = Callable[[Event], None]


class Sink:
    """Hands events to `take` and keeps the last one, or the exception that `take` raised, in `end`."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self.end: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    def push(self, event: Event) -> None:
        if self.end.done():
            return
        if isinstance(event, Finished):
            self.end.set_result(event)
            return
        try:
            self._take(event)
        except Exception as error:  # noqa: BLE001 it ends this stream; the producer has others
            self.end.set_exception(error)


class EventStream:
    """An asynchronous iterator over the events of one generation, ending after `Finished`.

    `into` hands the events over by calls instead, for readers to whom a task that wakes for each event costs too much.
    Use either in `async with`: leaving the block before the end cancels the generation. Memory is bounded by the
    answer: an unread `Queued` is replaced by the newer one. A stream belongs to one event loop; it is not thread-safe.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._sink: Sink | None = None
        self.ended = False
        """True once `Finished` was pushed; it may not have been read yet."""

    def push(self, event: Event) -> None:
        """Add an event. Called by the producer, on the loop; nothing may follow `Finished`."""
        self.ended = isinstance(event, Finished)
        if self._sink is not None:
            self._sink.push(event)
            return
        if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
            self._events.pop()
        self._events.append(event)
        self._arrived.set()

    async def into(self, take: Take) -> Finished:
        """Call `take` with each event, those already here and then those to come. Return the last one.

        An exception from `take` is raised here, and no further event is handed over.
        """
        self._sink = Sink(take)
        while self._events:
            self._sink.push(self._events.popleft())
        return await self._sink.end

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self.ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        return self._events.popleft()

    async def __aenter__(self) -> EventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.ended:
            self._cancel()
