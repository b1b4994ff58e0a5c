"""What the page and the operator ask over HTTP: conversations, load, health.

Of conversations, all JSON, for the caller in the session: 401 `no_session` for nobody, 404 for what is not theirs, 409
`turn_in_progress`, 413 `too_large`, 400 with `code` and `message` for what cannot be done. What changes something wants
the header `X-CSRFToken`; the other tabs are told with `conversation.changed`.

GET `/api/conversations/?after=CURSOR&query=TEXT`
    `{conversations: [{id, title, updated, live, pinned, temporary}], next}`
GET `/api/conversations/ID/?before=MESSAGE`
    `{conversation, messages, earlier, settings}`: the shown branch, its end first. Each message has `siblings` (its
    versions, in order) and `feedback`; `earlier` is the next `before`.
PATCH `/api/conversations/ID/`
    takes `{title?, pinned?, shown?, settings?}`; `shown`: the branch through that message, to its latest end.
DELETE `/api/conversations/ID/`
    `{undo_until}`. A live answer is stopped.
POST `/api/conversations/ID/restore/`
    undoes that.
DELETE `/api/messages/ID/`
    the message and all that follows it.
PUT, DELETE `/api/messages/ID/feedback/`
    takes `{value: 1 or -1, comment?}`.
GET `/c/ID/export.md`, `/c/ID/export.json`
    the shown branch, to keep.

Temporary chats have no names, pins, undo, feedback and exports of their own: `not_offered`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any
from uuid import UUID

import msgspec
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

import llm
from chat import visitors
from chat.database import reading
from chat.export import as_markdown
from chat.histories import get_history
from chat.protocol import ERRORS
from chat.purge import DELETED
from chat.records import Caller, Changes, HistoryError, NotFound, Rating
from chat.turns import get_turns
from llm.errors import RequestError, Unavailable

View = Callable[..., Coroutine[Any, Any, HttpResponse]]

STATUS = {"not_found": 404, "turn_in_progress": 409, "unavailable": 503}
"""Of the codes that are not 400."""

_json = msgspec.json.Encoder()


def json(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(_json.encode(value), content_type="application/json", status=status)


def failure(code: str, status: int, message: str = "") -> HttpResponse:
    """The errors of HTTP look like the frame `error` and have its codes."""
    return json({"code": code, "message": message or ERRORS[code]}, status)


def of_caller(*methods: str) -> Callable[[View], View]:
    """A view of the caller in the session; nobody's is 401, what is not theirs is 404."""

    def of_methods(view: View) -> View:
        @require_http_methods(methods)
        @never_cache
        @wraps(view)
        async def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            caller = await reading(visitors.of_session)(request.session)
            if caller is None:
                return failure("no_session", 401)
            try:
                return await view(request, caller, *args, **kwargs)
            except HistoryError as error:
                return failure(error.code, STATUS.get(error.code, 400))
            except RequestError as error:
                return failure(error.code, 503, error.message)
            except RequestDataTooBig:
                return failure("too_large", 413)
            except msgspec.DecodeError as error:
                return failure("invalid_request", 400, str(error).replace("`", ""))

        return checked

    return of_methods


@of_caller("GET", "HEAD")
async def conversations(request: HttpRequest, caller: Caller) -> HttpResponse:
    """A page of the visitor's conversations."""
    asked = request.GET
    query = asked.get("query", "").replace("\0", "").strip()[:200]
    return json(await get_history().conversations(caller, asked.get("after"), query))


@of_caller("GET", "HEAD", "PATCH", "DELETE")
async def conversation(request: HttpRequest, caller: Caller, conversation: UUID) -> HttpResponse:
    """A conversation with messages of its shown branch; or a change of it, or its end."""
    history = get_history()
    if request.method == "PATCH":
        await history.change(caller, conversation, msgspec.json.decode(request.body, type=Changes))
    elif request.method == "DELETE":
        if (live := await history.delete(caller, conversation)) is not None:
            await get_turns().end(live)
        return changed(caller, conversation, {"undo_until": timezone.now() + DELETED})
    else:
        return json(await history.branch(caller, conversation, _message(request.GET.get("before"))))
    return changed(caller, conversation)


@of_caller("POST")
async def restore(request: HttpRequest, caller: Caller, conversation: UUID) -> HttpResponse:
    """Undo its deletion."""
    await get_history().restore(caller, conversation)
    return changed(caller, conversation)


@of_caller("DELETE")
async def message(request: HttpRequest, caller: Caller, message: UUID) -> HttpResponse:
    """Delete a message and all that follows it."""
    return changed(caller, await get_history().delete_message(caller, message))


@of_caller("PUT", "DELETE")
async def feedback(request: HttpRequest, caller: Caller, message: UUID) -> HttpResponse:
    """What the visitor thinks of an answer."""
    rating = msgspec.json.decode(request.body, type=Rating) if request.method == "PUT" else None
    return changed(caller, await get_history().rate(caller, message, rating))


@of_caller("GET", "HEAD")
async def export(request: HttpRequest, caller: Caller, conversation: UUID, kind: str) -> HttpResponse:
    """The shown branch as a file."""
    branch = await get_history().branch(caller, conversation, whole=True)
    body = as_markdown(branch) if kind == "md" else msgspec.json.format(_json.encode(branch))
    answer = HttpResponse(body, content_type="text/markdown; charset=utf-8" if kind == "md" else "application/json")
    answer["Content-Disposition"] = content_disposition_header(True, f"{branch.conversation.title}.{kind}")
    return answer


def changed(caller: Caller, conversation: UUID, body: object = None) -> HttpResponse:
    """Done; the visitor's other tabs are told."""
    get_turns().hub.announce(caller.visitor, conversation)
    return json(body if body is not None else {})


def _message(value: str | None) -> UUID | None:
    try:
        return None if value is None else UUID(value)
    except ValueError:
        raise NotFound from None


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
