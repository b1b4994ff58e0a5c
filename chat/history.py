"""The history in the database.

Knows no sockets, no frames and no model. Every row of a turn is written here: its first ones in one transaction, its
last ones in another, and only by the process that owns the turn.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping
from uuid import UUID

from django.db import IntegrityError, InterfaceError, OperationalError, connection, transaction

from chat import acceptance, branches, edits, generations
from chat.contract import INTERRUPTED
from chat.database import reading, writing
from chat.models import Conversation, Generation, Message
from chat.records import (
    Accepted,
    Asked,
    Branch,
    Caller,
    Changes,
    HistoryError,
    HistoryUnavailable,
    NotFound,
    Page,
    Rating,
    StoredAnswer,
    TurnInProgress,
)
from llm.events import Finished

PROCESS = uuid.uuid4()
"""Names this process in the rows of the turns it runs."""


class DatabaseHistory:
    """Keeps turns in the tables of `chat.models`."""

    def __init__(self, owner: UUID = PROCESS) -> None:
        self.owner = owner

    async def accepted(self, caller: Caller, frame: str) -> Accepted | None:
        with translated():
            return await reading(acceptance.earlier)(caller.visitor, frame)

    async def accept(self, asked: Asked) -> Accepted:
        with translated():
            return await writing(self._accept)(asked)

    async def started(self, generation: UUID) -> None:
        with translated():
            await writing(generations.begin)(self.owner, generation)

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        with translated():
            return await writing(self._checkpoint)(texts)

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        with translated():
            return await writing(self._finish)(generation, text, end)

    async def recover(self) -> int:
        return await writing(self._recover)()

    async def conversations(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        with translated():
            return await reading(branches.page)(caller.visitor, after, query)

    async def holds(self, caller: Caller, conversation: UUID) -> bool:
        found = branches.theirs(caller.visitor).filter(pk=conversation)
        with translated():
            return await reading(found.exists)()

    async def branch(
        self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False
    ) -> Branch:
        with translated():
            return await reading(branches.shown)(caller.visitor, conversation, before, whole=whole)

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        with translated():
            return await reading(branches.answer)(caller.visitor, conversation, generation)

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        found = Generation.objects.filter(pk=generation, conversation__in=branches.theirs(caller.visitor))
        with translated():
            return await reading(found.exists)()

    async def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        with translated():
            return await writing(edits.delete)(caller.visitor, conversation)

    async def restore(self, caller: Caller, conversation: UUID) -> None:
        found = Conversation.objects.filter(pk=conversation, visitor=caller.visitor)
        with translated():
            if not await writing(found.update)(deleted=None):
                raise NotFound

    async def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        with translated():
            await writing(edits.change)(caller.visitor, conversation, changes)

    async def delete_message(self, caller: Caller, message: UUID) -> UUID:
        with translated():
            return await writing(edits.delete_message)(caller.visitor, message)

    async def rate(self, caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
        with translated():
            return await writing(edits.rate)(caller.visitor, answer, rating)

    def _accept(self, asked: Asked) -> Accepted:
        try:
            with transaction.atomic():
                return acceptance.store(asked, self.owner)
        except (IntegrityError, HistoryError) as error:
            if repeated := acceptance.earlier(asked.caller.visitor, asked.frame):
                return repeated
            if isinstance(error, HistoryError):
                raise
            raise TurnInProgress from None

    @transaction.atomic
    def _checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        held = generations.hold(self.owner, texts)
        _write_texts({answer: texts[key] for key, answer in held.items() if answer is not None})
        return set(texts) - set(held)

    @transaction.atomic
    def _finish(self, generation: UUID, text: str, end: Finished) -> bool:
        if not generations.end(generations.living(self.owner, [generation]), end):
            return generations.ended_so(generations.own(self.owner, [generation]).filter(answer__text=text), end)
        Message.objects.filter(generations=generation).update(text=text)
        return True

    def _recover(self) -> int:
        others = Generation.objects.filter(state__in=Generation.LIVE).exclude(owner=self.owner)
        return generations.end(others, INTERRUPTED)


def _write_texts(texts: Mapping[UUID, str]) -> None:
    """Django's bulk_update writes one CASE over all rows, whose making holds up the event loop for longer."""
    key = Message._meta.pk
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {Message._meta.db_table} SET text = %s WHERE {key.column} = %s",  # noqa: S608 our own names
            [(text, key.get_db_prep_value(answer, connection)) for answer, text in texts.items()],
        )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Trouble of the database, in the words of the contract."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise HistoryUnavailable from error
