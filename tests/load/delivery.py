"""How late text arrives when many answers stream through one web process: `python -m tests.load.delivery`.

Starts a site on the synthetic backend, has N visitors ask at once, and notes when each delta arrives. A stream's tokens
are made at a steady pace, so the delay of a delta is how far it is behind the pace that the earliest delta of its
stream sets. Client and server share the machine, and the client's own work is in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.server import Site
from tests.visitor import Visitor


async def arrivals(visitor: Visitor, connected: asyncio.Barrier) -> list[float]:
    """When everybody is connected: ask, and note when each delta comes. Nothing is parsed that need not be."""
    times: list[float] = []
    async with visitor.socket() as socket:
        await connected.wait()
        await socket.send("message.send", text="Hello")
        async for message in socket.connection:
            if '"generation.delta"' in str(message[:60]):
                times.append(time.perf_counter())
            elif '"generation.finished"' in str(message[:60]):
                break
    return times


def delays(times: list[float], period: float) -> list[float]:
    paced = [at - place * period for place, at in enumerate(times)]
    return [at - min(paced) for at in paced]


async def measure(url: str, streams: int, rate: float, web: psutil.Process) -> tuple[list[float], int, float, float]:
    """Delays in order, frames, seconds, and the web process's seconds of CPU, all without the connecting."""
    visitors = [Visitor(url) for _ in range(streams)]
    for visitor in visitors:
        await visitor.get("/")
    connected = asyncio.Barrier(streams + 1)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(arrivals(visitor, connected)) for visitor in visitors]
        await connected.wait()
        began, before = time.perf_counter(), web.cpu_times()
    seconds, after = time.perf_counter() - began, web.cpu_times()
    streamed = [task.result() for task in tasks]
    late = sorted(delay for times in streamed for delay in delays(times, 1 / rate))
    return late, sum(map(len, streamed)), seconds, after.user + after.system - before.user - before.system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0)
    options = parser.parse_args()
    environment = {
        "LLM_NUM_OF_CONCURRENT_EXECUTIONS": str(options.streams),
        "LLM_SYNTHETIC_TOKENS": str(options.tokens),
        "LLM_SYNTHETIC_RATE": str(options.rate),
    }
    with tempfile.TemporaryDirectory(prefix="site-") as var:
        site = Site(Path(var), environment)
        site.prepare()
        site.start()
        assert site.process is not None
        web = psutil.Process(site.process.pid)
        try:
            late, frames, seconds, cpu = asyncio.run(measure(site.url, options.streams, options.rate, web))
        finally:
            site.stop()
    print(f"{options.streams} streams, {frames} frames in {seconds:.1f} s, load {os.getloadavg()[0]:.1f}")
    print(f"delay: p50 {statistics.median(late) * 1e3:.0f} ms, p99 {late[int(len(late) * 0.99)] * 1e3:.0f} ms")
    print(f"web process: {cpu / frames * 1e6:.0f} microseconds of CPU a frame")


if __name__ == "__main__":
    main()
