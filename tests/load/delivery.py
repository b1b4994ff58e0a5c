"""How late text arrives when many answers stream through one web process: `python -m tests.load.delivery`.

Starts a site on the synthetic backend, has N visitors ask at once, and notes when each token arrives. A stream's tokens
are made at a steady pace and each is its own number, so the delay of a token is how far it is behind the pace that the
earliest token of its stream sets; what the turn's gathering adds is part of it. Counted is the time in which all
streams run, one second after the last of them has begun until the first ends. Client, llm service and web process
share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import time
from dataclasses import dataclass, field

import psutil

from tests.load.reader import Reader
from tests.load.sites import chat, cpu
from tests.visitor import Visitor

SETTLED = 1.0
"""Seconds after the last stream has begun from which tokens count."""


@dataclass
class Stream:
    """When each token came: `(time, number)`. The text is looked at only as far as it must be."""

    tokens: list[tuple[float, int]] = field(default_factory=list)
    frames: list[float] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def receive(self, frame: bytes) -> None:
        if frame.startswith(b'{"type":"generation.delta"'):
            now = time.perf_counter()
            self.frames.append(now)
            for number in frame[frame.rindex(b'"text":"') + 8 : -2].split():
                self.tokens.append((now, int(number)))
        elif frame.startswith(b'{"type":"generation.finished"'):
            self.ended.set()

    def delays(self, period: float, begin: float, end: float) -> list[float]:
        paced = [(at, at - number * period) for at, number in self.tokens if begin <= at <= end]
        first = min(pace for _, pace in paced)
        return [pace - first for _, pace in paced]


@dataclass
class Measured:
    """Delays in order, frames, seconds, and seconds of CPU that the web process and the llm service used for them."""

    streams: list[Stream]
    delays: list[float]
    frames: int
    seconds: float
    web: float
    service: float

    def delay(self, share: float) -> float:
        return self.delays[int(len(self.delays) * share)]


class Meter:
    """The CPU time of a process over time, read ten times a second."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._readings: list[tuple[float, float]] = []

    async def run(self) -> None:
        while True:
            self._readings.append((time.perf_counter(), cpu(self._process)))
            await asyncio.sleep(0.1)

    def between(self, begin: float, end: float) -> float:
        used = [used for at, used in self._readings if begin <= at <= end]
        return used[-1] - used[0]


async def measure(url: str, web: psutil.Process, streams: int, rate: float) -> Measured:
    (service,) = [child for child in web.children() if "llm.service" in " ".join(child.cmdline())]
    meters = Meter(web), Meter(service)
    visitors = [Visitor(url) for _ in range(streams)]
    told = [Stream() for _ in visitors]
    readers = [
        await Reader.connect(url, "/ws/chat/", stream.receive, await visitor.cookies())
        for visitor, stream in zip(visitors, told, strict=True)
    ]
    reading = [asyncio.create_task(meter.run()) for meter in meters]
    gc.disable()  # its pauses would be taken for the server's
    for reader in readers:
        reader.send("message.send", text="Hello")
    await asyncio.gather(*(stream.ended.wait() for stream in told))
    for task in reading:
        task.cancel()
    for reader in readers:
        await reader.aclose()
    gc.enable()
    begin = max(stream.frames[0] for stream in told) + SETTLED
    end = min(stream.frames[-1] for stream in told)
    assert begin < end, "the streams never ran all at once: more tokens are needed"
    delays = sorted(delay for stream in told for delay in stream.delays(1 / rate, begin, end))
    frames = sum(begin <= at <= end for stream in told for at in stream.frames)
    return Measured(told, delays, frames, end - begin, *(meter.between(begin, end) for meter in meters))


def run(streams: int, tokens: int, rate: float) -> Measured:
    with chat(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=streams,
        LLM_SYNTHETIC_TOKENS=tokens,
        LLM_MAX_NEW_TOKENS=tokens,
        LLM_SYNTHETIC_RATE=rate,
    ) as (url, web):
        return asyncio.run(measure(url, web, streams, rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--rate", type=float, default=20.0)
    options = parser.parse_args()
    found = run(options.streams, options.tokens, options.rate)
    print(
        f"{options.streams} streams of {options.rate:g} tokens/s: {len(found.delays)} tokens in {found.frames} frames "
        f"in {found.seconds:.1f} s, load {os.getloadavg()[0]:.1f}"
    )
    print("delay: " + ", ".join(f"p{share:g} {found.delay(share / 100) * 1e3:.0f} ms" for share in (50, 90, 99, 99.9)))
    for name, used in (("web process", found.web), ("llm service", found.service)):
        print(f"{name}: {used / found.frames * 1e6:.0f} microseconds of CPU a frame, {used / found.seconds:.2f} cores")


if __name__ == "__main__":
    main()
