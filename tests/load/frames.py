"""Frames a second through one web process, beside a bare Channels consumer: `python -m tests.load.frames`.

The bare consumer sends frames of the same text in a loop. Ours replays an answer, delta by delta, as it does to a page
that comes back; what that costs more is all that a chat is more than a loop. Each runs alone, with as many sockets, and
the client reads as cheaply as Python can.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psutil

from tests.load.reader import Reader
from tests.load.sites import bare, chat, cpu
from tests.visitor import Visitor

DELTA = '{"type":"generation.delta","generation":"00000000-0000-0000-0000-000000000000","seq":100,"text":" 100"}'


@dataclass
class Flow:
    """Frames that came, the seconds it took, and the seconds of CPU the server used."""

    frames: int
    seconds: float
    used: float

    def __str__(self) -> str:
        return (
            f"{self.frames / self.seconds:,.0f} frames/s, {self.used / self.frames * 1e6:.0f} microseconds of CPU each"
        )


class Counter:
    """Counts the deltas of one socket; asks for the answer again at its end, until they are as many as expected."""

    def __init__(self, expected: int, again: Callable[[], None] = lambda: None) -> None:
        self.frames = 0
        self.done = asyncio.Event()
        self._expected = expected
        self._again = again

    def receive(self, frame: bytes) -> None:
        if frame.startswith(b'{"type":"generation.delta"'):
            self.frames += 1
            if self.frames == self._expected:
                self.done.set()
        elif frame.startswith(b'{"type":"generation.finished"') and not self.done.is_set():
            self._again()


async def flow(
    counters: list[Counter], readers: list[Reader], process: psutil.Process, begin: Callable[[], None]
) -> Flow:
    """Of all counters, from `begin` on; closes the readers."""
    began, before = time.perf_counter(), cpu(process)
    begin()
    await asyncio.gather(*(counter.done.wait() for counter in counters))
    found = Flow(sum(counter.frames for counter in counters), time.perf_counter() - began, cpu(process) - before)
    for reader in readers:
        await reader.aclose()
    return found


async def of_bare(url: str, process: psutil.Process, sockets: int, frames: int) -> Flow:
    counters = [Counter(frames) for _ in range(sockets)]
    readers = [await Reader.connect(url, "/", counter.receive) for counter in counters]

    def begin() -> None:
        for reader in readers:
            reader.send("", frames=frames, text=DELTA)

    return await flow(counters, readers, process, begin)


async def of_chat(url: str, process: psutil.Process, sockets: int, replays: int) -> Flow:
    """Every socket has the same answer replayed so often, one replay after the other."""
    visitor = Visitor(url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Count")
        deltas = (await socket.answer(accepted)).kinds.count("delta")
    cookies = await visitor.cookies()
    counters: list[Counter] = []
    readers: list[Reader] = []

    def ask(number: int) -> None:
        fields = {"conversation": accepted["conversation"], "generation": accepted["generation"]}
        readers[number].send("conversation.open", next_seq=0, **fields)

    for number in range(sockets):
        counters.append(Counter(replays * deltas, partial(ask, number)))
        readers.append(await Reader.connect(url, "/ws/chat/", counters[-1].receive, cookies))

    def begin() -> None:
        for number in range(sockets):
            ask(number)

    return await flow(counters, readers, process, begin)


def measure(sockets: int, deltas: int, replays: int) -> tuple[Flow, Flow]:
    """The bare consumer's flow and ours."""
    with bare() as (url, process):
        theirs = asyncio.run(of_bare(url, process, sockets, deltas * replays))
    with chat(
        LLM_SYNTHETIC_TOKENS=deltas, LLM_SYNTHETIC_RATE=24, LLM_MAX_NEW_TOKENS=deltas, CHAT_SOCKETS_PER_VISITOR=1_000
    ) as (url, process):
        ours = asyncio.run(of_chat(url, process, sockets, replays))
    return theirs, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=50)
    parser.add_argument("--deltas", type=int, default=240)
    parser.add_argument("--replays", type=int, default=10)
    options = parser.parse_args()
    theirs, ours = measure(options.sockets, options.deltas, options.replays)
    print(f"bare Channels consumer: {theirs}")
    print(f"ChatConsumer:           {ours}")
    wall = (ours.frames / ours.seconds) / (theirs.frames / theirs.seconds)
    print(f"ratio: {wall:.2f} by the clock, {theirs.used / theirs.frames / (ours.used / ours.frames):.2f} by CPU")


if __name__ == "__main__":
    main()
