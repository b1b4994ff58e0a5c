"""A socket of a page, without the socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from chat.history.values import Accepted, Caller
from chat.streams.feed import Feed
from chat.turns.registry import Turns
from chat.wire.frames import GenerationDelta, GenerationFinished, GenerationSnapshot, ServerFrame


class Tab:
    """A socket at a process: `text` is what its page shows.

    Fails on a gap, a repeat, a second end, and on what follows an end.
    """

    def __init__(self, turns: Turns, visitor: Caller) -> None:
        self.turns = turns
        self.visitor = visitor
        self.changed = asyncio.Event()
        self.feed = Feed(8, self.changed.set)
        self.leave = turns.hub.join(visitor.visitor, self.feed, lambda: None)
        self.text = ""
        self.next_seq: int | None = None
        self.ends: list[str] = []
        self.kinds: list[type[ServerFrame]] = []

    async def open(self, accepted: Accepted, next_seq: int | None = None) -> None:
        await self.open_generation(accepted.conversation, accepted.generation, next_seq)

    async def open_generation(self, conversation: UUID, generation: UUID, next_seq: int | None = None) -> None:
        transcript = await self.turns.watch(self.visitor, conversation, generation)
        assert transcript is not None
        self.next_seq = next_seq
        self.feed.follow(transcript, next_seq)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while True:
                self.take()
                if condition():
                    return
                await self.changed.wait()

    def take(self) -> None:
        self.changed.clear()
        for frame in self.feed.frames():
            self.kinds.append(type(frame))
            match frame:
                case GenerationSnapshot():
                    self.text, self.next_seq = frame.text, frame.next_seq
                case GenerationDelta():
                    assert frame.seq == self.next_seq
                    assert not self.ends
                    self.text, self.next_seq = self.text + frame.text, frame.seq + 1
                case GenerationFinished():
                    self.ends.append(frame.reason)
        assert len(self.ends) < 2
