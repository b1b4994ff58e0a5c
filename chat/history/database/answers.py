"""Writes the answers of kept conversations to their rows."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db import connection

from chat.history.answers import Answers
from chat.models import Message


class DatabaseAnswers(Answers):
    """The answers that a process writes to the tables."""

    def _write(self, held: Mapping[UUID, UUID | None], texts: Mapping[UUID, str]) -> set[UUID]:
        """Update each row by a statement of its own.

        Django's bulk_update writes one CASE over all rows, whose making holds up the event loop for longer.
        """
        key = Message._meta.pk
        with connection.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {Message._meta.db_table} SET text = %s WHERE {key.column} = %s",  # noqa: S608 our own names
                [(texts[generation], key.get_db_prep_value(answer, connection)) for generation, answer in held.items()],
            )
        return set(held)

    def _has(self, generation: UUID, text: str) -> bool:
        return Message.objects.filter(generations=generation, text=text).exists()
