"""Lets the operator find, read and delete conversations, never write them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest

from chat.admin.permissions import ReadOnly
from chat.models import Conversation, Message


class MessageInline(ReadOnly, admin.TabularInline):
    model = Message
    fields = readonly_fields = ("created", "role", "text")
    ordering = ("created",)
    can_delete = False
    verbose_name_plural = "messages"


@admin.register(Conversation)
class ConversationAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("title", "visitor", "message_count", "updated", "created")
    list_filter = ("updated", "generations__state", ("visitor__user", admin.EmptyFieldListFilter))
    search_fields = ("title", "messages__text", "visitor__user__username")
    date_hierarchy = "updated"
    ordering = ("-updated",)
    list_select_related = ("visitor__user",)
    fields = readonly_fields = ("title", "visitor", "created", "updated")
    inlines: ClassVar = [MessageInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Conversation]:
        rows: QuerySet[Conversation] = super().get_queryset(request)
        return rows.annotate(message_count=Count("messages", distinct=True))

    @admin.display(description="messages", ordering="message_count")
    def message_count(self, conversation: Any) -> int:
        return int(conversation.message_count)


@admin.register(Message)
class MessageAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("beginning", "role", "conversation", "created")
    list_filter = ("role", "created")
    search_fields = ("text", "conversation__title")
    date_hierarchy = "created"
    ordering = ("-created",)
    list_select_related = ("conversation",)
    fields = readonly_fields = ("conversation", "role", "created", "text")

    @admin.display(description="text")
    def beginning(self, message: Message) -> str:
        return message.text if len(message.text) <= 100 else message.text[:99] + "…"
