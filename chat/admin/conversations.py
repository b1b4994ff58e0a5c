"""Lets the operator find, read and delete conversations, never write them.

There can be hundreds of thousands of messages: no query joins conversations with their messages or generations, and no
page shows all messages of a conversation.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import BaseInlineFormSet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import smart_split, unescape_string_literal
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from chat.admin.deletion import DeletesConversations
from chat.admin.permissions import ReadOnly
from chat.models import Conversation, Generation, Message

SHOWN = 50
"""How many messages of a conversation its page shows, the last ones."""

BEGINNING = 2_000
"""Characters of each of these that its page shows."""


class LatestMessages(BaseInlineFormSet):
    """Takes the last messages of a conversation."""

    def get_queryset(self) -> Any:
        if not hasattr(self, "_latest"):
            self._latest = list(super().get_queryset().order_by("-created")[:SHOWN])[::-1]
        return self._latest


class MessageInline(ReadOnly, admin.TabularInline):
    model = Message
    formset = LatestMessages
    fields = readonly_fields = ("created", "role", "beginning")
    can_delete = False
    show_change_link = True
    verbose_name_plural = _("the last messages")

    @admin.display(description=_("text"))
    def beginning(self, message: Message) -> str:
        return _beginning(message, BEGINNING)


class StateFilter(admin.SimpleListFilter):
    """Filters conversations by the state of any of their generations."""

    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, str(state.label)) for state in Generation.State]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if (state := self.value()) is None:
            return queryset
        return queryset.filter(Exists(Generation.objects.filter(conversation=OuterRef("pk"), state=state)))


@admin.register(Conversation)
class ConversationAdmin(DeletesConversations, ReadOnly, admin.ModelAdmin):
    owned_by = "pk"
    list_display = ("title", "visitor", "message_count", "updated", "created")
    list_filter = ("updated", StateFilter, ("visitor__user", admin.EmptyFieldListFilter))
    search_fields = ("title", "visitor__user__username")
    search_help_text = _("Words of titles, messages and names of accounts.")
    date_hierarchy = "updated"
    ordering = ("-updated",)
    list_select_related = ("visitor__user",)
    fields = readonly_fields = ("title", "visitor", "created", "updated", "all_messages")
    inlines: ClassVar = [MessageInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request)
        theirs = Message.objects.filter(conversation=OuterRef("pk")).values("conversation")
        return rows.annotate(message_count=Coalesce(Subquery(theirs.values(count=Count("pk"))), 0))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find conversations that have each word, or text in quotes, in one of the fields or in a message."""
        for word in smart_split(search_term):
            if word[0] in "\"'" and word[0] == word[-1]:
                word = unescape_string_literal(word)
            found = Q(Exists(Message.objects.filter(conversation=OuterRef("pk"), text__icontains=word)))
            for field in self.search_fields:
                found |= Q((f"{field}__icontains", word))
            queryset = queryset.filter(found)
        return queryset, False

    @admin.display(description=_("messages"), ordering="message_count")
    def message_count(self, conversation: Any) -> int:
        return int(conversation.message_count)

    @admin.display(description=_("messages"))
    def all_messages(self, conversation: Any) -> SafeString:
        count = self.message_count(conversation)
        address = reverse("admin:chat_message_changelist", query={"conversation__id__exact": conversation.pk})
        text = ngettext("%(count)d message", "%(count)d messages", count) % {"count": count}
        return format_html('<a href="{}">{}</a>', address, text)


@admin.register(Message)
class MessageAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("beginning", "role", "conversation", "created")
    list_filter = ("role", "created")
    search_fields = ("text", "conversation__title")
    date_hierarchy = "created"
    ordering = ("-created",)
    list_select_related = ("conversation",)
    fields = readonly_fields = ("conversation", "role", "created", "text")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False  # its visitor deletes it, with all that follows, or the conversation goes whole

    @admin.display(description=_("text"))
    def beginning(self, message: Message) -> str:
        return _beginning(message, 100)


def _beginning(message: Message, length: int) -> str:
    return message.text if len(message.text) <= length else message.text[: length - 1] + "…"
