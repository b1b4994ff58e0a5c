"""Memory of an open chat in which nothing happens, beside a bare Channels consumer: `python -m tests.load.idle`.

Resident memory of the server's process, before and after N sockets, divided by N. Each of our sockets is one of a
visitor of its own, whose page was loaded; so many as warm the process up are open before.
"""

from __future__ import annotations

import argparse
import asyncio

import psutil

from tests.load.reader import Reader
from tests.load.sites import bare, chat, cpu
from tests.visitor import Visitor

WARM = 50
"""Sockets that are open before the first look: whatever is made once is there by then."""


async def rested(process: psutil.Process) -> int:
    """Resident memory once the process does nothing any more, in bytes."""
    used, calm = cpu(process), 0
    while calm < 10:
        await asyncio.sleep(0.1)
        now = cpu(process)
        calm, used = (calm + 1 if now - used <= 0.02 else 0), now
    return int(process.memory_info().rss)


async def of_sockets(url: str, path: str, process: psutil.Process, sockets: int, *, visitors: bool) -> float:
    """Bytes a socket."""
    heard = [asyncio.Event() for _ in range(WARM + sockets)]

    async def opened(first: int, last: int) -> list[Reader]:
        readers: list[Reader] = []
        for each in heard[first:last]:
            cookies = await Visitor(url).cookies() if visitors else ""
            readers.append(await Reader.connect(url, path, lambda frame, each=each: each.set(), cookies))
            if visitors:
                await each.wait()
        return readers

    warm = await opened(0, WARM)
    before = await rested(process)
    readers = await opened(WARM, WARM + sockets)
    after = await rested(process)
    for reader in warm + readers:
        await reader.aclose()
    return (after - before) / sockets


def measure(sockets: int) -> tuple[float, float]:
    """Bytes of a bare consumer and of an open chat."""
    with bare() as (url, process):
        theirs = asyncio.run(of_sockets(url, "/", process, sockets, visitors=False))
    with chat() as (url, process):
        ours = asyncio.run(of_sockets(url, "/ws/chat/", process, sockets, visitors=True))
    return theirs, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sockets", type=int, default=1_000)
    options = parser.parse_args()
    theirs, ours = measure(options.sockets)
    print(f"{options.sockets} idle sockets, resident memory of each:")
    print(f"bare Channels consumer: {theirs / 1024:.0f} KiB")
    print(f"open chat:              {ours / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
