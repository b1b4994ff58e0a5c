"""The events of one generation, handed from whoever produces them to one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from llm.events import Event, Finished, Queued


class EventStream:
    """An asynchronous iterator over the events of one generation, ending after `Finished`.

    Use it as `async with`: leaving the block before the end cancels the generation. Memory is bounded by the answer:
    an unread place in the queue is replaced by the newer one. Belongs to one event loop; not thread-safe.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self.ended = False
        """`Finished` was pushed; it may not have been read yet."""

    def push(self, event: Event) -> None:
        """Called by the producer, on the loop. After `Finished` nothing may follow."""
        if isinstance(event, Queued) and self._events and isinstance(self._events[-1], Queued):
            self._events.pop()
        self._events.append(event)
        self.ended = isinstance(event, Finished)
        self._arrived.set()

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
