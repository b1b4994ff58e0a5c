"""What the page and the operator fetch over HTTP: conversations, load, health."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

import llm
from chat import visitors
from chat.database import reading
from chat.history import get_history
from chat.protocol import ERRORS
from chat.records import HistoryError
from chat.turns import get_turns
from llm.errors import Unavailable

View = Callable[..., Coroutine[Any, Any, HttpResponse]]

_json = msgspec.json.Encoder()


def json(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(_json.encode(value), content_type="application/json", status=status)


def failure(code: str, status: int, message: str = "") -> HttpResponse:
    """The errors of HTTP look like the frame `error` and have its codes."""
    return json({"code": code, "message": message or ERRORS[code]}, status)


def of_visitor(view: View) -> View:
    """A view of the visitor in the session; nobody's is 401, what is not theirs is 404."""

    @require_safe
    @never_cache
    @wraps(view)
    async def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        visitor = await reading(visitors.of_session)(request.session)
        if visitor is None:
            return failure("no_session", 401)
        try:
            return await view(request, visitor, *args, **kwargs)
        except HistoryError as error:
            return failure(error.code, 404 if error.code == "not_found" else 503)

    return checked


@of_visitor
async def conversations(request: HttpRequest, visitor: UUID) -> HttpResponse:
    """A page of the visitor's conversations, latest first; `?after=` is the `next` of the page before."""
    return json(await get_history().conversations(visitor, request.GET.get("after")))


@of_visitor
async def conversation(request: HttpRequest, visitor: UUID, conversation: UUID) -> HttpResponse:
    """A conversation with the messages of its shown branch."""
    return json(await get_history().branch(visitor, conversation))


@require_safe
@never_cache
async def stats(request: HttpRequest) -> HttpResponse:
    """How busy the model is. Counts only, so anyone may ask."""
    try:
        return json(await llm.get_controller().stats())
    except Unavailable as error:
        return failure(error.code, 503, error.message)


@require_safe
@never_cache
async def healthz(request: HttpRequest) -> HttpResponse:
    """The event loop answers."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
@never_cache
async def readyz(request: HttpRequest) -> HttpResponse:
    """Messages would be answered; if not, why."""
    if get_turns().hub.restarting:
        return HttpResponse("draining\n", content_type="text/plain", status=503)
    status = llm.get_controller().status
    if status.state in ("ready", "degraded"):
        return HttpResponse("ready\n", content_type="text/plain")
    reason = f"{status.state}: {status.message}" if status.message else status.state
    return HttpResponse(f"{reason}\n", content_type="text/plain", status=503)
