"""What tests of the llm service ask of it, by its clients and by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from llm.conf import Settings
from llm.event_stream import EventStream
from llm.events import Delta, Event, Started, Status
from llm.service import wire
from llm.service.address import Address, service_address
from llm.service.client import ServiceClient
from llm.service.launch import connect
from llm.service.server import Service
from tests.llm.scripted import request

NewClient = Callable[..., ServiceClient]


async def end_service(settings: Settings) -> None:
    """Do not wait out its last five seconds."""
    if (streams := await connect(settings)) is not None:
        reader, writer = streams
        writer.write(wire.encode(wire.Login("")) + wire.encode(wire.Retire()))
        await reader.read()
        writer.close()


def path_of(settings: Settings) -> Path:
    path = service_address(settings).path
    assert path is not None
    return path


async def becomes(client: ServiceClient, state: str) -> Status:
    changed = asyncio.Event()
    stop = client.on_status(lambda status: changed.set())
    client.connect()
    async with asyncio.timeout(60):
        while client.status.state != state:
            changed.clear()
            await changed.wait()
    stop()
    return client.status


async def hello(settings: Settings) -> wire.Hello:
    streams = await connect(settings)
    assert streams is not None
    reader, writer = streams
    writer.write(wire.encode(wire.Login("")))
    frame = await anext(wire.read_frames(reader, wire.service_frames))
    writer.close()
    assert isinstance(frame, wire.Hello)
    return frame


async def answer(client: ServiceClient, text: str = "hello") -> list[Event]:
    async with (await client.admit("ada")).run(request(text)) as events:
        return [event async for event in events]


async def started(client: ServiceClient, text: str = "hello") -> EventStream:
    """A generation that has its place and has said nothing yet."""
    stream = (await client.admit("ada")).run(request(text))
    while not isinstance(await anext(stream), Started):
        pass
    return stream


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@contextlib.asynccontextmanager
async def serving(settings: Settings, address: Address) -> AsyncIterator[Service]:
    """A service in this process, for tests that set its limits or its backend; the sockets are real."""
    service = Service(settings, address, stays=True)
    listening = asyncio.Event()
    running = asyncio.create_task(service.run(listening.set))
    await listening.wait()
    try:
        yield service
    finally:
        service.stop()
        assert await running == 0
