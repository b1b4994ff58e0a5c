"""Holds what one generation has told so far, and the place of everyone who reads it.

A reader is a cursor into the one buffer and what wakes it, never a queue of its own: a hundred readers cost a hundred
integers, and a slow one holds nothing but itself. Knows no sockets and no database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Protocol
from uuid import UUID

import msgspec
from msgspec import UNSET

from chat.wire.frames import (
    MAX_FRAME_BYTES,
    GenerationDelta,
    GenerationFinished,
    GenerationQueued,
    GenerationSnapshot,
    GenerationStarted,
    ServerFrame,
)
from llm.events import Delta, Event, Finished, Queued, Started

logger = logging.getLogger(__name__)

DELTA_CHARS = 8_000
"""Characters of one delta: the longest that fits a frame however they are written."""

SNAPSHOT_BYTES = MAX_FRAME_BYTES - 512

STORED = 1_000_000_000
"""The first number of the deltas a stored text is cut into, which are not those it was streamed in."""


def tell(told: Callable[[], object]) -> None:
    """Call one of several who are to be told something; if it fails, the others are told all the same."""
    try:
        told()
    except Exception:
        logger.exception("One of those who were to be told something could not be")


class Reader(Protocol):
    """Someone who wants to know that something happened; an `asyncio.Event` will do."""

    def set(self) -> None:
        """Take note that something happened. Must not read before it returns."""


class Transcript:
    """Holds the events of a generation: the latest place in the queue, the start, all deltas, the end."""

    def __init__(self, generation: UUID) -> None:
        self.generation = generation
        self.deltas: list[str] = []
        self.first = 0
        """The number of the first delta. The numbers of a stored text begin far above any that a turn gave out."""
        self.edition = 0
        """Grows when the deltas were replaced by others; whoever had the old ones needs a snapshot."""
        self.given = 0
        """How many of the deltas are the text that an answer had before it went on."""
        self.queued: Queued | None = None
        self.started: Started | None = None
        self.end: Finished | None = None
        self.readers: set[Reader] = set()
        self.on_watched: Callable[[bool], None] = lambda watched: None
        """Called with whether anyone reads, when the first reader comes or the last one goes."""

    def begin_with(self, text: str) -> None:
        """Start with the text of an answer that goes on."""
        if text:
            self.push(Delta(text))
            self.given = len(self.deltas)

    @classmethod
    def of_stored(cls, generation: UUID, text: str, end: Finished) -> Transcript:
        """Make the transcript of a generation that is over from what was stored of it."""
        transcript = cls(generation)
        transcript.first = STORED
        if text:
            transcript.push(Delta(text))
        transcript.push(end)
        return transcript

    @property
    def text(self) -> str:
        return "".join(self.deltas)

    @property
    def state(self) -> str:
        if self.end is not None:
            return self.end.reason
        return "queued" if self.started is None and len(self.deltas) == self.given else "running"

    def join(self, reader: Reader) -> None:
        """Set `reader` with everything that happens from now on."""
        self.readers.add(reader)
        if len(self.readers) == 1:
            self.on_watched(True)

    def leave(self, reader: Reader) -> None:
        if reader in self.readers:
            self.readers.remove(reader)
            if not self.readers:
                self.on_watched(False)

    def push(self, event: Event) -> None:
        """Add what happened and wake the readers."""
        match event:
            case Delta(text) if len(text) <= DELTA_CHARS:
                self.deltas.append(text)
            case Delta(text):
                self.deltas += (text[i : i + DELTA_CHARS] for i in range(0, len(text), DELTA_CHARS))
            case Queued():
                self.queued = event
            case Started():
                self.started = event
            case Finished():
                self.end = event
        self.wake()

    def wake(self) -> None:
        """Tell all readers that something happened."""
        for reader in self.readers:
            tell(reader.set)


class Watch:
    """The place of one reader in a transcript.

    `next_seq` is the first delta it lacks; None asks for a snapshot first, as does a number nobody gave out. A text
    that is not in the deltas it was streamed in begins with one anyway.
    """

    def __init__(self, transcript: Transcript, wake: Reader, next_seq: int | None = None) -> None:
        self.transcript = transcript
        self.done = False
        self._wake = wake
        self._told: Queued | Started | None = None
        self._next = next_seq or 0
        self._edition = transcript.edition
        self._lacks_snapshot = next_seq is None or transcript.first > 0 or next_seq > len(transcript.deltas)
        transcript.join(wake)
        wake.set()

    def leave(self) -> None:
        self.transcript.leave(self._wake)

    def frames(self) -> Iterator[ServerFrame]:
        """Yield what the reader has not had yet, oldest first, with what arrives between two frames."""
        source, generation = self.transcript, self.transcript.generation
        if self._lacks_snapshot or self._edition != source.edition:
            self._lacks_snapshot, self._edition = False, source.edition
            yield self._snapshot()
        if source.started is None and source.queued is not None and self._told is not source.queued:
            self._told = place = source.queued
            if source.end is None:
                yield GenerationQueued(generation=generation, position=place.position, size=place.size, eta=place.eta)
        if source.started is not None and self._told is not source.started:
            self._told = source.started
            yield GenerationStarted(generation=generation, queue_time=source.started.queue_time)
        while self._edition == source.edition and self._next < len(source.deltas):
            index, self._next = self._next, self._next + 1
            yield GenerationDelta(generation=generation, seq=source.first + index, text=source.deltas[index])
        if source.end is not None and not self.done and self._edition == source.edition:
            self.done = True
            yield finished(generation, source.end)

    def _snapshot(self) -> GenerationSnapshot:
        """Make a snapshot of as much of the text as fits a frame; the rest follows as deltas."""
        size = count = 0
        for delta in self.transcript.deltas:
            size += len(msgspec.json.encode(delta)) - 2
            if size > SNAPSHOT_BYTES:
                break
            count += 1
        self._next = count
        whole = count == len(self.transcript.deltas)
        return GenerationSnapshot(
            generation=self.transcript.generation,
            state=self.transcript.state if whole else "running",
            text="".join(self.transcript.deltas[:count]),
            next_seq=self.transcript.first + count,
        )


def finished(generation: UUID, end: Finished) -> GenerationFinished:
    """Make the frame that says how a generation ended."""
    return GenerationFinished(
        generation=generation,
        reason=end.reason,
        usage=end.usage,
        timings=end.timings,
        code=UNSET if end.code is None else end.code,
        message=UNSET if end.message is None else end.message,
        model=end.model,
    )
