"""The histories of this site behind one contract: which of them a chat is in is decided here, and nowhere else.

The id of a temporary chat, and of each of its messages, tells that it is one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from uuid import UUID

import msgspec
from msgspec import UNSET

from chat import opening
from chat.conf import get_settings
from chat.contract import History
from chat.history import DatabaseHistory
from chat.records import (
    Accepted,
    Asked,
    Branch,
    Caller,
    Changes,
    NotFound,
    NotOffered,
    Page,
    Question,
    Rating,
    StoredAnswer,
)
from chat.session_history import SessionHistory
from chat.temporary import is_temporary
from llm.events import Finished


class Histories:
    """Chats in tables, and temporary ones in sessions."""

    def __init__(self, kept: History, temporary: SessionHistory) -> None:
        self._kept = kept
        self._temporary = temporary

    async def accepted(self, caller: Caller, frame: str) -> Accepted | None:
        try:
            return await self._kept.accepted(caller, frame)
        except NotFound:
            return await self._temporary.accepted(caller, frame)

    async def accept(self, asked: Asked) -> Accepted:
        temporary = _wants_temporary(asked)
        if get_settings().temporary == ("off" if temporary else "only"):
            raise NotOffered
        if isinstance(asked, Question):
            opening.check(asked.settings)
        history: History = self._temporary if temporary else self._kept
        return await history.accept(asked)

    async def started(self, generation: UUID) -> None:
        await self._of_turn(generation).started(generation)

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        temporary = {key: text for key, text in texts.items() if self._temporary.keeps(key)}
        kept = {key: text for key, text in texts.items() if key not in temporary}
        gone: set[UUID] = set()
        if temporary:
            gone |= await self._temporary.checkpoint(temporary)
        if kept:
            gone |= await self._kept.checkpoint(kept)
        return gone

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        return await self._of_turn(generation).finish(generation, text, end)

    async def recover(self) -> int:
        return await self._kept.recover()  # by rows, which all generations have

    async def conversations(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        page = await self._kept.conversations(caller, after, query)
        if after is not None or query:
            return page
        temporary = await self._temporary.conversations(caller)
        return msgspec.structs.replace(page, conversations=[*temporary.conversations, *page.conversations])

    async def holds(self, caller: Caller, conversation: UUID) -> bool:
        return await self._of(conversation).holds(caller, conversation)

    async def branch(
        self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False
    ) -> Branch:
        return await self._of(conversation).branch(caller, conversation, before, whole=whole)

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        return await self._of(conversation).answer(caller, conversation, generation)

    async def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        return await self._of(conversation).delete(caller, conversation)

    async def restore(self, caller: Caller, conversation: UUID) -> None:
        await self._of(conversation).restore(caller, conversation)

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        return await self._kept.owns(caller, generation) or await self._temporary.owns(caller, generation)

    async def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        if changes.settings is not UNSET:
            opening.check(changes.settings)
        await self._of(conversation).change(caller, conversation, changes)

    async def delete_message(self, caller: Caller, message: UUID) -> UUID:
        return await self._of(message).delete_message(caller, message)

    async def rate(self, caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
        return await self._of(answer).rate(caller, answer, rating)

    def _of(self, conversation: UUID) -> History:
        return self._temporary if is_temporary(conversation) else self._kept

    def _of_turn(self, generation: UUID) -> History:
        return self._temporary if self._temporary.keeps(generation) else self._kept


def _wants_temporary(asked: Asked) -> bool:
    """Raises NotOffered where the chat is of the other kind."""
    if not isinstance(asked, Question):
        return is_temporary(asked.answer)
    if asked.conversation is None:
        by_default = get_settings().temporary in ("default", "only")
        return by_default if asked.temporary is None else asked.temporary
    temporary = is_temporary(asked.conversation)
    if asked.temporary not in (None, temporary):
        raise NotOffered
    return temporary


@functools.cache
def get_history() -> History:
    """The history of this site."""
    return Histories(DatabaseHistory(), SessionHistory())
