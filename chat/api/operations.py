"""Tells an operator and their machines how the site is: load, health, readiness."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

import llm
from chat.api.responses import failure, json
from chat.turns.registry import get_turns
from llm.errors import Unavailable


@require_safe
@never_cache
async def stats(request: HttpRequest) -> HttpResponse:
    """Return how busy the model is. These are counts only, so anyone may ask."""
    try:
        return json(await llm.get_controller().stats())
    except Unavailable as error:
        return failure(error.code, 503, error.message)


@require_safe
@never_cache
async def healthz(request: HttpRequest) -> HttpResponse:
    """Answer at once, which shows that the event loop turns."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
async def readyz(request: HttpRequest) -> HttpResponse:
    """Tell whether a message would be answered, and if not, why."""
    if get_turns().hub.restarting:
        return HttpResponse("draining\n", content_type="text/plain", status=503)
    status = llm.get_controller().status
    if status.state in ("ready", "degraded"):
        return HttpResponse("ready\n", content_type="text/plain")
    reason = f"{status.state}: {status.message}" if status.message else status.state
    return HttpResponse(f"{reason}\n", content_type="text/plain", status=503)
