"""Serves conversations to the page over HTTP.

All is JSON, for the caller in the session: 401 `no_session` for nobody, 404 for what is not theirs, 409
`turn_in_progress`, 413 `too_large`, 400 with `code` and `message` for what cannot be done. A request that changes
something needs the header `X-CSRFToken`; the other tabs are told with `conversation.changed`.

GET `/api/conversations/?after=CURSOR&query=TEXT`
    `{conversations: [{id, title, updated, live, pinned, temporary}], next}`
GET `/api/conversations/ID/?before=MESSAGE`
    `{conversation, messages, earlier, settings}`: the shown branch, its end first. Each message has `siblings` (its
    versions, in order) and `feedback`; `earlier` is the next `before`.
PATCH `/api/conversations/ID/`
    takes `{title?, pinned?, shown?, settings?}`; `shown`: the branch through that message, to its latest end.
DELETE `/api/conversations/ID/`
    `{undo_until}`. A live answer is stopped; where it cannot be reached, it goes on unseen to its end.
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

import logging
from uuid import UUID

import msgspec
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.http import content_disposition_header

from chat.api.export import as_markdown
from chat.api.responses import as_json, json, of_caller
from chat.errors import NotFound
from chat.history.history import get_history
from chat.history.values import Caller, Changes, Rating
from chat.retention import DELETED
from chat.turns.registry import get_turns

logger = logging.getLogger(__name__)


@of_caller("GET", "HEAD")
async def conversations(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Return a page of the caller's conversations."""
    asked = request.GET
    query = asked.get("query", "").replace("\0", "").strip()[:200]
    return json(await get_history().conversations(caller, asked.get("after"), query))


@of_caller("GET", "HEAD", "PATCH", "DELETE")
async def conversation(request: HttpRequest, caller: Caller, conversation: UUID) -> HttpResponse:
    """Return a conversation with messages of its shown branch; or change it, or delete it."""
    history = get_history()
    if request.method == "PATCH":
        await history.change(caller, conversation, msgspec.json.decode(request.body, type=Changes))
    elif request.method == "DELETE":
        if (live := await history.delete(caller, conversation)) is not None:
            await _end(live)
        return changed(caller, conversation, {"undo_until": timezone.now() + DELETED})
    else:
        return json(await history.branch(caller, conversation, _message(request.GET.get("before"))))
    return changed(caller, conversation)


@of_caller("POST")
async def restore(request: HttpRequest, caller: Caller, conversation: UUID) -> HttpResponse:
    """Undo the deletion of a conversation."""
    await get_history().restore(caller, conversation)
    return changed(caller, conversation)


@of_caller("DELETE")
async def message(request: HttpRequest, caller: Caller, message: UUID) -> HttpResponse:
    """Delete a message and all that follows it."""
    return changed(caller, await get_history().delete_message(caller, message))


@of_caller("PUT", "DELETE")
async def feedback(request: HttpRequest, caller: Caller, message: UUID) -> HttpResponse:
    """Store the caller's rating of an answer, or remove it."""
    rating = msgspec.json.decode(request.body, type=Rating) if request.method == "PUT" else None
    return changed(caller, await get_history().rate(caller, message, rating))


@of_caller("GET", "HEAD")
async def export(request: HttpRequest, caller: Caller, conversation: UUID, kind: str) -> HttpResponse:
    """Return the shown branch as a file."""
    branch = await get_history().branch(caller, conversation, whole=True)
    body = as_markdown(branch) if kind == "md" else msgspec.json.format(as_json(branch))
    answer = HttpResponse(body, content_type="text/markdown; charset=utf-8" if kind == "md" else "application/json")
    answer["Content-Disposition"] = content_disposition_header(True, f"{branch.conversation.title}.{kind}")
    return answer


def changed(caller: Caller, conversation: UUID, body: object = None) -> HttpResponse:
    """Answer that it is done, and tell the visitor's other tabs."""
    get_turns().hub.announce(caller.visitor, conversation)
    return json(body if body is not None else {})


async def _end(generation: UUID) -> None:
    """Stop the answer under way in a conversation that was deleted, and stays so if that fails."""
    try:
        await get_turns().end(generation)
    except Exception as error:  # noqa: BLE001 whatever it was, the answer has an end of its own
        logger.warning("An answer in a deleted conversation could not be stopped: %s", error)


def _message(value: str | None) -> UUID | None:
    try:
        return None if value is None else UUID(value)
    except ValueError:
        raise NotFound from None
