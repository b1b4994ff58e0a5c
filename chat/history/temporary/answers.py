"""Writes the answers of temporary chats to their session."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from chat.errors import NotFound
from chat.history.answers import Answers
from chat.history.temporary.chats import LIMIT, TemporaryChats, TemporaryMessage
from chat.history.temporary.reading import live
from chat.history.temporary.sessions import opened


@dataclass(frozen=True)
class SessionAnswers(Answers):
    """The answers that a process writes to the session `key`."""

    key: str

    def _write(self, held: Mapping[UUID, UUID | None], texts: Mapping[UUID, str]) -> set[UUID]:
        written: set[UUID] = set()
        with contextlib.suppress(NotFound), opened(self.key) as chats:
            for generation in held:
                with contextlib.suppress(NotFound):
                    _, answer = chats.written_by(generation)
                    answer.text = texts[generation]
                    bound(chats, answer)
                    written.add(generation)
        return written

    def _has(self, generation: UUID, text: str) -> bool:
        return True  # it may have been cut since, or be gone


def bound(chats: TemporaryChats, newest: TemporaryMessage) -> None:
    """Cut the chats to LIMIT."""
    if chats.size > LIMIT:
        chats.cut(live(*chats.chats), newest)
