"""The page. It makes the visitor known to the session; what it shows, its scripts fetch."""

from __future__ import annotations

from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from chat import visitors
from chat.models import Conversation


@require_safe
@never_cache
def page(request: HttpRequest, conversation: UUID | None = None) -> HttpResponse:
    """The chat, at a new conversation or at one of the visitor's own."""
    visitor = visitors.ensure(request)
    if conversation is not None and not Conversation.objects.filter(pk=conversation, visitor=visitor).exists():
        raise Http404("There is no such conversation.")
    return render(request, "chat/page.html")
