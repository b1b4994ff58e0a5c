"""Lets the operator look at the state and the figures of generations."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from chat.admin.permissions import ReadOnly
from chat.models import Generation


@admin.register(Generation)
class GenerationAdmin(ReadOnly, admin.ModelAdmin):
    list_display = (
        "created",
        "state",
        "in_conversation",
        "model",
        "prompt_tokens",
        "completion_tokens",
        "queue_time",
        "ttft",
        "tokens_per_second",
    )
    list_filter = ("state", "created")
    search_fields = ("conversation__title", "error", "code")
    date_hierarchy = "created"
    ordering = ("-created",)
    list_select_related = ("conversation",)
    exclude = ("answer", "visitor")

    @admin.display(description=_("conversation"), ordering="conversation__title")
    def in_conversation(self, generation: Generation) -> str:
        return gettext("temporary chat") if generation.conversation is None else str(generation.conversation)
