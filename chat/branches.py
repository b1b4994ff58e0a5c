"""Reading what was said: the way from a message up to its conversation's beginning, and lists of conversations.

Writes nothing and takes no locks, so what is read in two queries may have changed between them; where that matters,
the order of the queries makes it harmless.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast
from uuid import UUID

from django.db.models import OuterRef, Q, QuerySet, Subquery

from chat.models import Conversation, Generation, Message
from chat.records import (
    Branch,
    NotFound,
    Page,
    StoredAnswer,
    StoredConversation,
    StoredGeneration,
    StoredMessage,
)
from llm.events import Timings, Usage
from llm.request import ChatMessage, Role

PAGE_SIZE = 50


def prompt(conversation: UUID, question: UUID) -> tuple[ChatMessage, ...]:
    """The branch that ends in `question`, for the model.

    A question whose answer stayed empty is left out: the model would see two questions in a row, which many chat
    templates refuse.
    """
    path = _path(conversation, question)
    messages = Message.objects.in_bulk(path)
    turns: list[ChatMessage] = []
    for message in (messages[key] for key in path):
        if message.role == Message.Role.ASSISTANT and not message.text:
            turns.pop()
        else:
            turns.append(ChatMessage(cast(Role, message.role), message.text))
    return tuple(turns)


def shown(visitor: UUID, conversation: UUID) -> Branch:
    """The shown branch. Raises NotFound."""
    row = _with_live(Conversation.objects.filter(pk=conversation, visitor=visitor)).first()
    if row is None:
        raise NotFound
    path = _path(row.pk, row.shown_id)
    # Before the texts: an answer that ends in between is then reported as running, and whoever asks for the rest of
    # it gets the whole; the other way round it would be reported as complete, without its text.
    generations = {each.answer_id: each for each in Generation.objects.filter(answer__in=path).order_by("created")}
    messages = Message.objects.in_bulk(path)
    return Branch(
        conversation=_stored_conversation(row),
        messages=[_stored_message(messages[key], generations.get(key)) for key in path],
    )


def answer(visitor: UUID, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
    """The answer of `generation`, or of the one that lives in the conversation, if one does. Raises NotFound."""
    if not Conversation.objects.filter(pk=conversation, visitor=visitor).exists():
        raise NotFound
    rows = Generation.objects.select_related("answer").filter(conversation=conversation)
    if generation is None:
        row = rows.filter(state__in=Generation.LIVE).first()
    elif (row := rows.filter(pk=generation).first()) is None:
        raise NotFound
    return None if row is None else StoredAnswer(generation=_stored_generation(row), text=row.answer.text)


def page(visitor: UUID, after: str | None = None) -> Page:
    """The visitor's conversations, latest first; `after` is the `next` of the page before. Raises NotFound."""
    rows = _with_live(Conversation.objects.filter(visitor=visitor)).order_by("-updated", "-pk")
    if after is not None:
        updated, key = _cursor(after)
        rows = rows.filter(Q(updated__lt=updated) | Q(updated=updated, pk__lt=key))
    found = list(rows[: PAGE_SIZE + 1])
    last = found[PAGE_SIZE - 1] if len(found) > PAGE_SIZE else None
    return Page(
        conversations=[_stored_conversation(row) for row in found[:PAGE_SIZE]],
        next=None if last is None else f"{last.updated.isoformat()}~{last.pk}",
    )


def _cursor(after: str) -> tuple[datetime, UUID]:
    updated, _, key = after.partition("~")
    try:
        return datetime.fromisoformat(updated), UUID(key)
    except ValueError:
        raise NotFound from None


def _path(conversation: UUID, message: UUID | None) -> list[UUID]:
    """From the root to `message`, keys only."""
    parents = dict(Message.objects.filter(conversation=conversation).values_list("pk", "parent"))
    path: list[UUID] = []
    while message is not None:
        path.append(message)
        message = parents[message]
    return path[::-1]


def _with_live(rows: QuerySet[Conversation]) -> QuerySet[Conversation]:
    live = Generation.objects.filter(conversation=OuterRef("pk"), state__in=Generation.LIVE)
    return rows.annotate(live=Subquery(live.values("pk")[:1]))


def _stored_conversation(row: Conversation) -> StoredConversation:
    return StoredConversation(id=row.pk, title=row.title, updated=row.updated, live=getattr(row, "live", None))


def _stored_message(row: Message, generation: Generation | None) -> StoredMessage:
    return StoredMessage(
        id=row.pk,
        parent=row.parent_id,
        role=row.role,
        text=row.text,
        created=row.created,
        generation=None if generation is None else _stored_generation(generation),
    )


def _stored_generation(row: Generation) -> StoredGeneration:
    return StoredGeneration(
        id=row.pk,
        state=row.state,
        usage=Usage(
            prompt_tokens=row.prompt_tokens or 0,
            cached_tokens=row.cached_tokens or 0,
            completion_tokens=row.completion_tokens or 0,
        ),
        timings=Timings(
            queue_time=row.queue_time,
            ttft=row.ttft,
            decode_time=row.decode_time,
            tokens_per_second=row.tokens_per_second,
        ),
        code=row.code or None,
        message=row.error or None,
    )
