"""Writes the answers of turns together with the state of their generations, wherever the texts are kept.

Only the process that runs a turn writes its answer, and its end is written once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.db import transaction

from chat.db import write
from chat.history import generations
from llm.events import Finished


@dataclass(frozen=True)
class Answers(ABC):
    """Base of the AnswerStores: what `process` has under way in one place."""

    process: UUID

    async def started(self, generation: UUID) -> None:
        await write(generations.start, self.process, [generation])

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        return await write(self._checkpoint, texts)

    async def finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        return await write(self._finish, generation, text, end)

    @transaction.atomic
    def _checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        held = generations.hold(self.process, texts)
        if not held:
            return set(texts)
        generations.start(self.process, held)  # the recording of their start may have failed
        return set(texts) - self._write(held, texts)

    @transaction.atomic
    def _finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        held = generations.hold(self.process, [generation])
        if held:
            self._write(held, {generation: text})  # if the text has no place any more, the figures are what stays
            generations.end(generations.live(self.process, held), end)
        elif not (generations.ended_so(self.process, generation, end) and self._has(generation, text)):
            return None
        return generations.visitor_of(generation)

    @abstractmethod
    def _write(self, held: Mapping[UUID, UUID | None], texts: Mapping[UUID, str]) -> set[UUID]:
        """Store the texts of the generations that are `held`; return those that have a place for it."""

    @abstractmethod
    def _has(self, generation: UUID, text: str) -> bool:
        """Tell whether the answer of a generation that ended was stored with this text."""
