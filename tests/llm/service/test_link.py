"""The guard of a link: a service that answers keeps it, one that is silent loses it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from llm.service import wire
from llm.service.link import Link


class Ends(NamedTuple):
    link: Link
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ours, theirs = socket.socketpair()
    link = Link(*await asyncio.open_connection(sock=ours))
    reader, writer = await asyncio.open_connection(sock=theirs)
    yield Ends(link, reader, writer)
    link.close()
    writer.close()


async def read(link: Link) -> None:
    async for _ in link.frames():
        pass


async def test_a_service_that_has_loaded_is_not_judged_by_what_it_left_unsaid_while_loading(ends: Ends) -> None:
    patience = 100.0
    pongs = 0
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read(ends.link))
        guard = tasks.create_task(ends.link.guard(0.05, lambda: patience, kills=False))
        async for frame in wire.read_frames(ends.reader, wire.client_frames):
            assert isinstance(frame, wire.Ping)
            ends.writer.write(wire.encode(wire.Pong()))
            pongs, patience = pongs + 1, 2.0
            if pongs == 10:
                break
        assert ends.link.open
        guard.cancel()
        reading.cancel()
    assert pongs == 10


async def test_a_silent_service_loses_the_link(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    reading = asyncio.create_task(read(ends.link))
    await ends.link.guard(0.02, lambda: 0.1, kills=False)
    await reading
    assert not ends.link.open
    assert "has said nothing for" in caplog.text


async def test_a_process_that_stood_still_does_not_take_the_service_for_silent(ends: Ends) -> None:
    """It was stopped, or its loop computed: that says nothing of the service, which others use."""
    reading = asyncio.create_task(read(ends.link))
    guard = asyncio.create_task(ends.link.guard(0.05, lambda: 0.4, kills=False))
    frames = wire.read_frames(ends.reader, wire.client_frames)
    assert isinstance(await anext(frames), wire.Ping)
    time.sleep(0.6)  # noqa: ASYNC251 that is what is tried
    assert isinstance(await anext(frames), wire.Ping)
    assert ends.link.open
    guard.cancel()
    ends.link.close()
    await reading
