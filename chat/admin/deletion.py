"""Lets pages of the admin delete rows with the conversations that belong to them.

Django's own page before a deletion lists every message below its question or answer, which takes long for many and is
too deep for a long conversation; this one counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from django.contrib.auth import get_permission_codename
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from chat.models import Conversation, Feedback, Generation, Message
from chat.retention import delete_conversations

NAMED = 20
"""How many of the rows that are about to be deleted the page names."""


class DeletesConversations:
    """Deletes rows of a model admin after the conversations that are theirs."""

    model: type[Model]
    owned_by: ClassVar[str]
    """The lookup that leads from a conversation to a row of this admin."""

    def get_deleted_objects(
        self, objs: Iterable[Model], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        """Return names, how many rows of each kind would go, the kinds that this user may not delete, and nothing."""
        rows = list(objs)
        owned = self._owned(rows)
        counts: dict[type[Model], int] = {
            self.model: len(rows),
            Conversation: owned.count(),
            Message: Message.objects.filter(conversation__in=owned).count(),
            Generation: Generation.objects.filter(conversation__in=owned).count(),
            Feedback: Feedback.objects.filter(answer__conversation__in=owned).count(),
        }
        names = [str(row) for row in rows[:NAMED]] + ["…"] * (len(rows) > NAMED)
        summary = {str(kind._meta.verbose_name_plural): count for kind, count in counts.items() if count}
        refused = {str(kind._meta.verbose_name) for kind, count in counts.items() if count and not _may(request, kind)}
        return names, summary, refused, []

    def delete_model(self, request: HttpRequest, obj: Model) -> None:
        self._delete_owned([obj])
        obj.delete()

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._delete_owned(queryset)
        queryset.delete()

    def _delete_owned(self, rows: Iterable[Model]) -> None:
        delete_conversations(list(self._owned(list(rows)).values_list("pk", flat=True)))

    def _owned(self, rows: Collection[Model]) -> QuerySet[Conversation]:
        return Conversation.objects.filter(**{f"{self.owned_by}__in": [row.pk for row in rows]})


def _may(request: HttpRequest, kind: type[Model]) -> bool:
    options = kind._meta
    return request.user.has_perm(f"{options.app_label}.{get_permission_codename('delete', options)}")
