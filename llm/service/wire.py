"""Defines the frames between the llm service and its clients, and cuts them out of a byte stream.

Frames are MessagePack by msgspec, each behind its length (4 bytes, big-endian). A client numbers its requests, and
everything the service says about a request carries that number. All events of one turn of the service's loop travel to
a client in one `Events` frame. Both ends are always the same version, which the hello names.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import TypeVar

import msgspec

from llm.errors import one_line
from llm.events import Event, Stats, Status
from llm.request import GenerationRequest
from llm.sampling import SamplingParams

Frame = TypeVar("Frame")

PROTOCOL = 1
MAX_FRAME = 64 * 1024 * 1024
"""Bytes of the largest frame. Both ends look before they send: a larger one is the failure of its request alone."""
MAX_LOGIN = 64 * 1024
"""Bytes of the largest first frame of a client, which has shown no token yet; LLM_SERVICE_TOKEN is far shorter."""


class Unsendable(Exception):
    """Raised when a frame is too large, or has a value that MessagePack cannot express; nothing was sent then."""


class Numbered(msgspec.Struct, frozen=True):
    """What every frame about a request has, whatever else is wrong with it."""

    id: int


class Login(msgspec.Struct, frozen=True, tag=True):
    """The first frame of a client; the token is empty if the service asks for none. Hello, or the end, answers it."""

    token: str


class Admit(msgspec.Struct, frozen=True, tag=True):
    """A request for a place. Admitted or Refused answers it."""

    id: int
    visitor: str


class Run(msgspec.Struct, frozen=True, tag=True):
    """Use the place of `id`; its events follow."""

    id: int
    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Give back the place of `id`, whatever became of it. Not answered; a request that was run ends with Finished."""

    id: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    """A question whether the service's loop is alive. Pong answers it."""


class GetStats(msgspec.Struct, frozen=True, tag=True):
    """A question for the load. StatsReply answers it."""

    id: int


class Retire(msgspec.Struct, frozen=True, tag=True):
    """End, if nobody else is connected: the client needs other settings. The end of the connection answers it."""


ClientFrame = Login | Admit | Run | Cancel | Ping | GetStats | Retire


class Hello(msgspec.Struct, frozen=True, tag=True):
    """The first frame of the service. `others` is the number of other clients that are connected."""

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
    """Events of requests, in order, each with the request's number."""

    events: list[tuple[int, Event]]


class Pong(msgspec.Struct, frozen=True, tag=True):
    """A sign that the service's loop is alive; it says nothing of the model."""


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
_numbered = msgspec.msgpack.Decoder(Numbered)
client_frames: msgspec.msgpack.Decoder[ClientFrame] = msgspec.msgpack.Decoder(ClientFrame)
service_frames: msgspec.msgpack.Decoder[ServiceFrame] = msgspec.msgpack.Decoder(ServiceFrame)


def encode(frame: ClientFrame | ServiceFrame) -> bytes:
    """Return the frame behind its length. Raises Unsendable."""
    try:
        body = _encoder.encode(frame)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unsendable(one_line(error)) from error
    if len(body) > MAX_FRAME:
        raise Unsendable(f"It takes {len(body)} bytes; {MAX_FRAME} can be sent at once.")
    return _length.pack(len(body)) + body


def number_of(body: bytes) -> int | None:
    """Return the number of the request that a frame is about, whose other fields may be wrong; None if it has none."""
    try:
        return _numbered.decode(body).id
    except (msgspec.DecodeError, RecursionError):
        return None


async def read_body(reader: asyncio.StreamReader, limit: int = MAX_FRAME) -> bytes | None:
    """Return the next frame, None if the other end is gone, in whatever way.

    Raises msgspec.DecodeError for a frame of more than `limit` bytes, before it is read.
    """
    try:
        (length,) = _length.unpack(await reader.readexactly(_length.size))
        if length > limit:
            raise msgspec.DecodeError(f"a frame of {length} bytes, of at most {limit}")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None


async def read_frames(reader: asyncio.StreamReader, decoder: msgspec.msgpack.Decoder[Frame]) -> AsyncIterator[Frame]:
    """Yield frames until the other end is gone. Raises msgspec.DecodeError for broken ones."""
    while (body := await read_body(reader)) is not None:
        yield decoder.decode(body)
