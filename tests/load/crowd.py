"""A crowd of simulated visitors at one site: each asks, some stop, leave in the middle and come back, some are refused
and try again."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

from tests.visitor import Frame, Socket, Visitor

STOP, LEAVE = 0.15, 0.25
"""How many of the visitors stop their answer, and how many lose their connection during it."""


@dataclass
class Told:
    """What one visitor was told of one answer, over however many sockets."""

    accepted: Frame
    text: str = ""
    next_seq: int = 0
    end: Frame | None = None

    def take(self, frame: Frame) -> None:
        if frame.get("generation") != self.accepted["generation"]:
            return
        match frame["type"]:
            case "generation.delta":
                assert frame["seq"] == self.next_seq, "a gap or a repeat"
                self.text += frame["text"]
                self.next_seq += 1
            case "generation.snapshot":
                self.text, self.next_seq = frame["text"], frame["next_seq"]
            case "generation.finished":
                assert self.end is None, "two ends"
                self.end = frame


@dataclass
class Crowd:
    """`told` has every accepted message of everybody."""

    url: str
    size: int
    seed: int = 1
    told: list[Told] = field(default_factory=list)
    refused: int = 0
    reconnected: int = 0

    async def chat(self) -> None:
        """All at once; returns when everybody has an answer."""
        chance = random.Random(self.seed)
        visitors = [Visitor(self.url) for _ in range(self.size)]
        gate = asyncio.Semaphore(20)

        async def come(visitor: Visitor) -> None:
            async with gate:
                await visitor.cookies()

        await asyncio.gather(*map(come, visitors))
        await asyncio.gather(*(self._visit(visitor, random.Random(chance.random())) for visitor in visitors))

    async def _visit(self, visitor: Visitor, chance: random.Random) -> None:
        mood = chance.random()
        leaves_at = chance.randrange(4) if STOP <= mood < STOP + LEAVE else None
        async with visitor.socket() as socket:
            told = Told(await self._ask(socket, chance))
            self.told.append(told)
            if mood < STOP:
                await socket.send("generation.stop", generation=told.accepted["generation"])
            await self._read(socket, told, leaves_at)
        while told.end is None:
            self.reconnected += 1
            async with visitor.socket() as socket:
                await socket.send(
                    "conversation.open",
                    conversation=told.accepted["conversation"],
                    generation=told.accepted["generation"],
                    next_seq=told.next_seq,
                )
                await self._read(socket, told, None)

    async def _ask(self, socket: Socket, chance: random.Random) -> Frame:
        while (reply := await socket.ask("message.send", text="Hello"))["type"] != "message.accepted":
            assert reply["code"] == "overloaded", reply
            self.refused += 1
            await asyncio.sleep(chance.uniform(0.1, 0.5) * reply["retry_after"])
        return reply

    async def _read(self, socket: Socket, told: Told, leaves_at: int | None) -> None:
        while told.end is None and (leaves_at is None or told.next_seq < leaves_at):
            told.take(await socket.next())
