"""Serves the page and makes its visitor known to the session; what it shows, its scripts fetch."""

from __future__ import annotations

from uuid import UUID

from asgiref.sync import async_to_sync
from csp.decorators import csp_update
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from chat.conf import get_settings
from chat.history.history import get_history
from chat.visitors import identity
from chat.wire.ranges import ranges

# The page's scripts make no markup of texts, and cannot. Those of the admin do, so the site's policy lacks it.
TRUSTED_TYPES = {"require-trusted-types-for": ["'script'"], "trusted-types": ["'none'"]}


@require_safe
@never_cache
@ensure_csrf_cookie
@csp_update(TRUSTED_TYPES)
def page(request: HttpRequest, conversation: UUID | None = None) -> HttpResponse:
    """Show the chat, at a new conversation or at one of the visitor's own."""
    if get_settings().login_required and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    caller = identity.ensure(request)
    if conversation is not None and not (caller and async_to_sync(get_history().holds)(caller, conversation)):
        raise Http404("There is no such conversation.")
    shown = {
        "known": caller is not None,
        "account": caller.visitor if caller and request.user.is_authenticated else "",
        "chats": get_settings().temporary,
        "system_prompt": get_settings().system_prompt,
        "ranges": ranges(),
    }
    return render(request, "chat/page.html", shown)
