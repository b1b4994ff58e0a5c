"""The history of this site: the one place where it is decided whether a chat is kept in tables or in its session.

The id of a temporary chat, and of each of its messages, tells that it is one. Nothing here waits for a database: the
stores do their work in threads.
"""

from __future__ import annotations

import functools
from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction
from msgspec import UNSET

from chat.conf import get_settings
from chat.db import read, write, writing
from chat.errors import HistoryError, NotFound, NotOffered, TurnInProgress
from chat.history import database, generations, prompt, temporary
from chat.history.contract import Store
from chat.history.database import edits
from chat.history.ids import is_temporary
from chat.history.owners import owner
from chat.history.values import Accepted, Asked, Branch, Caller, Changes, Page, Question, Rating, StoredAnswer
from chat.models import Generation

KEPT: Store = database
TEMPORARY: Store = temporary


class History:
    """The conversations of all visitors, as `process` reads and writes them: a TurnHistory, and more for the page.

    Everything raises HistoryUnavailable when trying again can help.
    """

    def __init__(self, process: UUID = generations.PROCESS) -> None:
        self.process = process

    async def accepted(self, caller: Caller, request_id: str) -> Accepted | None:
        return await read(_accepted, caller, request_id)

    async def accept(self, asked: Asked) -> Accepted:
        store = _store_for(asked)
        if isinstance(asked, Question):
            prompt.check(asked.settings)
        return await write(_accept, store, asked, self.process)

    async def recover(self) -> int:
        """End what other processes have under way, as interrupted; return how many there were.

        Raises the database's own error: this is for the start of a process, whose operator needs to see it.
        """
        return await writing(generations.interrupt_others)(self.process)

    async def conversations(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        """Return a page of the caller's conversations, temporary ones first; see Store."""
        return await read(_page, caller, after, query)

    async def holds(self, caller: Caller, conversation: UUID) -> bool:
        return await read(_store_of(conversation).holds, caller, conversation)

    async def branch(
        self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False
    ) -> Branch:
        return await read(_store_of(conversation).branch, caller, conversation, before, whole=whole)

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        return await read(_store_of(conversation).answer, caller, conversation, generation)

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        return await read(_owns, caller, generation)

    async def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        return await write(_store_of(conversation).delete, caller, conversation)

    async def restore(self, caller: Caller, conversation: UUID) -> None:
        """Undo the deletion of a conversation. Raises NotFound if it is gone, as temporary ones are at once."""
        if not is_temporary(conversation):
            await write(edits.restore, caller, conversation)
        elif not await self.holds(caller, conversation):
            raise NotFound

    async def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        if changes.settings is not UNSET:
            prompt.check(changes.settings)
        await write(_store_of(conversation).change, caller, conversation, changes)

    async def delete_message(self, caller: Caller, message: UUID) -> UUID:
        """Delete it and all that follows it; return the conversation. Raises HistoryError."""
        _check_kept(message)
        return await write(edits.delete_message, caller, message)

    async def rate(self, caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
        """Store the caller's rating of an answer, None: remove it; return the conversation. Raises HistoryError."""
        _check_kept(answer)
        return await write(edits.rate, caller, answer, rating)


def _store_of(id: UUID) -> Store:
    return TEMPORARY if is_temporary(id) else KEPT


def _check_kept(message: UUID) -> None:
    if is_temporary(message):
        raise NotOffered


def _page(caller: Caller, after: str | None, query: str) -> Page:
    temporary, kept = TEMPORARY.page(caller, after, query), KEPT.page(caller, after, query)
    return msgspec.structs.replace(kept, conversations=[*temporary.conversations, *kept.conversations])


def _store_for(asked: Asked) -> Store:
    """Return where to store a request. Raises NotOffered where the site or the conversation is of the other kind."""
    policy = get_settings().temporary
    if not isinstance(asked, Question):
        wanted = is_temporary(asked.answer)
    elif asked.conversation is not None:
        wanted = is_temporary(asked.conversation)
        if asked.temporary not in (None, wanted):
            raise NotOffered
    else:
        wanted = policy in ("default", "only") if asked.temporary is None else asked.temporary
    if policy == ("off" if wanted else "only"):
        raise NotOffered
    return TEMPORARY if wanted else KEPT


def _accept(store: Store, asked: Asked, process: UUID) -> Accepted:
    try:
        with transaction.atomic():
            caller = msgspec.structs.replace(asked.caller, visitor=owner(asked.caller.visitor))
            asked = msgspec.structs.replace(asked, caller=caller)
            return store.accept(asked, process)
    except (IntegrityError, HistoryError) as error:
        if repeated := _accepted(asked.caller, asked.request_id):
            return repeated
        if isinstance(error, HistoryError):
            raise
        raise TurnInProgress from None


def _accepted(caller: Caller, request_id: str) -> Accepted | None:
    rows = Generation.objects.select_related("answer").filter(visitor=caller.visitor, request_id=request_id)
    row = rows.first()
    return None if row is None else _store_of_row(row).accepted(caller, row)


def _owns(caller: Caller, generation: UUID) -> bool:
    rows = Generation.objects.select_related("conversation").only("conversation__visitor", "conversation__deleted")
    row = rows.filter(pk=generation).first()
    return row is not None and _store_of_row(row).owns(caller, row)


def _store_of_row(row: Generation) -> Store:
    return TEMPORARY if row.conversation_id is None else KEPT


@functools.cache
def get_history() -> History:
    """Return the history of this process."""
    return History()
