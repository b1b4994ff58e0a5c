"""The frames between the llm service and its clients, and how they are cut out of a byte stream.

MessagePack by msgspec, each frame behind its length (4 bytes, big-endian). A client numbers its
requests; everything the service says about a request carries that number. All events of one turn of the service's
loop travel to a client in one `Events` frame. Both ends are always the same version: the hello says which.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from llm.events import Event, Stats, Status
from llm.request import GenerationRequest
from llm.sampling import SamplingParams

Frame = TypeVar("Frame")

PROTOCOL = 1
MAX_FRAME = 64 * 1024 * 1024
"""Bytes; far above any conversation, so that only a broken peer meets it."""


class Login(msgspec.Struct, frozen=True, tag=True):
    """The first frame of a client; empty where the service asks for no token. Answered by Hello, or by the end."""

    token: str


class Admit(msgspec.Struct, frozen=True, tag=True):
    """Answered by Admitted or Refused."""

    id: int
    visitor: str


class Run(msgspec.Struct, frozen=True, tag=True):
    """Use the place of `id`; its events follow."""

    id: int
    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Give back the place of `id`, whatever became of it. Not answered; a run request ends with Finished."""

    id: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answered by Pong."""


class GetStats(msgspec.Struct, frozen=True, tag=True):
    """Answered by StatsReply."""

    id: int


class Retire(msgspec.Struct, frozen=True, tag=True):
    """End, if nobody else is connected: the client needs other settings. Answered by the end of the connection."""


ClientFrame = Login | Admit | Run | Cancel | Ping | GetStats | Retire


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first frame of the service. `others`: how many other clients are connected."""

    protocol: int
    fingerprint: str
    pid: int
    others: int
    model: str
    defaults: SamplingParams
    status: Status


class Admitted(msgspec.Struct, frozen=True, tag=True):
    id: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """A RequestError, to be raised again at the other end."""

    id: int
    code: str
    message: str
    retry_after: float | None
    queue_size: int


class Events(msgspec.Struct, frozen=True, tag=True):
    """What happened to requests, in order."""

    events: list[tuple[int, Event]]


class Pong(msgspec.Struct, frozen=True, tag=True):
    """The service's loop is alive; of its model that says nothing."""


class StatsReply(msgspec.Struct, frozen=True, tag=True):
    id: int
    stats: Stats


class StatusChanged(msgspec.Struct, frozen=True, tag=True):
    status: Status
    model: str
    defaults: SamplingParams


ServiceFrame = Hello | Admitted | Refused | Events | Pong | StatsReply | StatusChanged

_encoder = msgspec.msgpack.Encoder()
_length = struct.Struct(">I")
client_frames: msgspec.msgpack.Decoder[ClientFrame] = msgspec.msgpack.Decoder(ClientFrame)
service_frames: msgspec.msgpack.Decoder[ServiceFrame] = msgspec.msgpack.Decoder(ServiceFrame)


def encode(frame: ClientFrame | ServiceFrame) -> bytes:
    body = _encoder.encode(frame)
    return _length.pack(len(body)) + body


async def read_frames(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[Frame]) -> AsyncIterator[Frame]:
    """Frames until the other end is gone, in whatever way. Raises msgspec.DecodeError for what is none."""
    while True:
        try:
            (length,) = _length.unpack(await reader.readexactly(_length.size))
            if length > MAX_FRAME:
                raise msgspec.DecodeError(f"a frame of {length} bytes")
            body = await reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        yield decoder.decode(body)
