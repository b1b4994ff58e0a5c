"""The events of one generation, handed from whoever produces them to one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from llm.events import Event, Finished, Queued

Take = Callable[[Event], None]


class Sink:
    """Hands events to `take` and keeps the last one, or what `take` raised, in `end`."""

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

    Where a task that wakes for each event costs too much, `into` hands them over instead. Use either as `async with`:
    leaving the block before the end cancels the generation. Memory is bounded by the answer: an unread place in the
    queue is replaced by the newer one. Belongs to one event loop; not thread-safe.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._sink: Sink | None = None
        self.ended = False
        """`Finished` was pushed; it may not have been read yet."""

    def push(self, event: Event) -> None:
        """Called by the producer, on the loop. After `Finished` nothing may follow."""
        self.ended = isinstance(event, Finished)
        if self._sink is not None:
            self._sink.push(event)
            return
        if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
            self._events.pop()
        self._events.append(event)
        self._arrived.set()

    async def into(self, take: Take) -> Finished:
        """Call `take` with each event, those that are here and those to come as they come; returns the last one.

        What `take` raises is raised here, and nothing more is handed over.
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
