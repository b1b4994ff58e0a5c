"""Defines what web processes say to each other.

Messages may be lost, so each is only a hint or can be asked for again.
"""

from __future__ import annotations

from uuid import UUID

import msgspec

from llm.events import Finished, Queued, Started


class BusMessage(msgspec.Struct, frozen=True, array_like=True):
    """Base of the messages between two processes."""


class Subscribe(BusMessage, frozen=True, array_like=True, tag="subscribe"):
    """Asks for a generation from the delta `next_seq` on, and what follows, to be sent to `process`.

    Repeated as long as it is wanted.
    """

    process: UUID
    generation: UUID
    next_seq: int


class Unsubscribe(BusMessage, frozen=True, array_like=True, tag="unsubscribe"):
    """Says that `process` wants no more of a generation."""

    process: UUID
    generation: UUID


class Part(msgspec.Struct, frozen=True, array_like=True):
    """Deltas of a generation from the number `first` on, and how it stands. `given` of all deltas came before it."""

    generation: UUID
    first: int
    deltas: list[str]
    given: int
    queued: Queued | None
    started: Started | None
    end: Finished | None


class News(BusMessage, frozen=True, array_like=True, tag="news"):
    """Tells what is new of everything that the receiver watches at the sender."""

    parts: list[Part]


class Stop(BusMessage, frozen=True, array_like=True, tag="stop"):
    """Asks whoever runs a generation to end it."""

    generation: UUID


class Changed(BusMessage, frozen=True, array_like=True, tag="changed"):
    """Tells of visitors and a conversation of theirs that changed; the sockets of `process` know."""

    process: UUID
    conversations: list[tuple[UUID, UUID]]


class Recheck(BusMessage, frozen=True, array_like=True, tag="recheck"):
    """Tells that a session of this visitor may have ended; the sockets of `process` know."""

    process: UUID
    visitor: UUID


AnyMessage = Recheck | Subscribe | Unsubscribe | News | Stop | Changed

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(AnyMessage).decode
