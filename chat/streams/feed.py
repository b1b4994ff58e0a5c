"""Collects what is due to one socket: the generations it follows, and notices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from chat.streams.transcript import Transcript, Watch
from chat.wire.frames import ServerFrame


class Feed:
    """Holds what is due to one socket: the transcripts it follows, and notices of which only the latest counts.

    `wake` is called whenever something may be due; it must not read on the spot.
    """

    def __init__(self, watches: int, wake: Callable[[], None]) -> None:
        self.set: Callable[[], None] = wake  # as the reader of a transcript
        self._limit = watches
        self._watches: dict[UUID, Watch] = {}
        self._notices: dict[object, ServerFrame] = {}

    def notice(self, key: object, frame: ServerFrame) -> None:
        """Have `frame` sent, in place of an earlier one of the same key that was not sent yet."""
        self._notices[key] = frame
        self.set()

    def follow(self, transcript: Transcript, next_seq: int | None = None) -> None:
        """Watch a generation. Beyond the limit, the one that was followed first is followed no longer."""
        self.unfollow(transcript.generation)
        while len(self._watches) >= self._limit:
            self.unfollow(next(iter(self._watches)))
        self._watches[transcript.generation] = Watch(transcript, self, next_seq)

    def unfollow(self, generation: UUID) -> None:
        if watch := self._watches.pop(generation, None):
            watch.leave()

    def frames(self) -> Iterator[ServerFrame]:
        """Yield what is due now."""
        while self._notices:
            yield self._notices.pop(next(iter(self._notices)))
        for watch in list(self._watches.values()):
            yield from watch.frames()
            if watch.done and self._watches.get(watch.transcript.generation) is watch:
                self.unfollow(watch.transcript.generation)

    @property
    def idle(self) -> bool:
        """Whether nothing is due, and nothing that it follows can still happen."""
        return not self._notices and not self._watches

    def close(self) -> None:
        """Follow nothing more, and wake nobody."""
        for generation in list(self._watches):
            self.unfollow(generation)
        self.set = lambda: None
