"""Reading what was said: the way from a message up to its conversation's beginning, and lists of conversations.

Writes nothing and takes no locks, so what is read in two queries may have changed between them; where that matters,
the order of the queries makes it harmless.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, cast
from uuid import UUID

import msgspec
from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from chat.models import Conversation, Feedback, Generation, Message
from chat.records import (
    Branch,
    NotFound,
    Page,
    Rating,
    Settings,
    StoredAnswer,
    StoredConversation,
    StoredGeneration,
    StoredMessage,
)
from llm.events import Timings, Usage
from llm.request import ChatMessage, Role

PAGE_SIZE = 50
"""Of a list of conversations, and of the messages of a branch."""


def prompt(conversation: UUID, question: UUID) -> tuple[ChatMessage, ...]:
    """The branch that ends in `question`, for the model."""
    path = _path(conversation, question)
    messages = Message.objects.in_bulk(path)
    return turns_for_model((messages[key].role, messages[key].text) for key in path)


def turns_for_model(said: Iterable[tuple[str, str]]) -> tuple[ChatMessage, ...]:
    """Roles and texts, as the model is to see them.

    A question whose answer stayed empty is left out: the model would see two questions in a row, which many chat
    templates refuse.
    """
    turns: list[ChatMessage] = []
    for role, text in said:
        if role == Message.Role.ASSISTANT and not text:
            turns.pop()
        else:
            turns.append(ChatMessage(cast(Role, role), text))
    return tuple(turns)


def theirs(visitor: UUID) -> QuerySet[Conversation]:
    """The visitor's conversations; a deleted one is nobody's."""
    return Conversation.objects.filter(visitor=visitor, deleted=None)


def settings_of(conversation: Conversation) -> Settings:
    """Those that were stored; what this version does not know or allow any more is as if it had not been set."""
    found = conversation.settings
    if _valid(found):
        return msgspec.convert(found, Settings)
    fields = found.items() if isinstance(found, dict) else ()
    return msgspec.convert({name: value for name, value in fields if _valid({name: value})}, Settings)


def _valid(settings: object) -> bool:
    try:
        msgspec.convert(settings, Settings)
    except msgspec.ValidationError:
        return False
    return True


def shown(visitor: UUID, conversation: UUID, before: UUID | None = None, *, whole: bool = False) -> Branch:
    """The end of the shown branch, or what comes before one of its messages, or all of it. Raises NotFound."""
    while (branch := _shown(visitor, conversation, before, whole=whole)) is None:
        pass
    return branch


def _shown(visitor: UUID, conversation: UUID, before: UUID | None, *, whole: bool) -> Branch | None:
    """None if messages of it were deleted while it was read."""
    row = _with_live(theirs(visitor).filter(pk=conversation)).first()
    if row is None:
        raise NotFound
    parents = parents_of(row.pk)
    versions: dict[UUID | None, list[UUID]] = {}
    for key, parent in parents.items():
        versions.setdefault(parent, []).append(key)
    if row.shown_id is not None and row.shown_id not in parents:
        return None
    path = _upwards(parents, row.shown_id)
    if before is not None:
        if before not in path:
            raise NotFound
        path = path[: path.index(before)]
    earlier = len(path) > PAGE_SIZE and not whole
    path = path[-PAGE_SIZE:] if earlier else path
    # Before the texts: an answer that ends in between is then reported as running, and whoever asks for the rest of
    # it gets the whole; the other way round it would be reported as complete, without its text.
    generations = {each.answer_id: each for each in Generation.objects.filter(answer__in=path).order_by("created")}
    messages = Message.objects.select_related("feedback").in_bulk(path)
    if len(messages) < len(path):
        return None
    return Branch(
        conversation=_stored_conversation(row),
        messages=[_stored_message(messages[key], generations.get(key), versions[parents[key]]) for key in path],
        earlier=path[0] if earlier else None,
        settings=settings_of(row),
    )


def answer(visitor: UUID, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
    """The answer of `generation`, or of the one that lives in the conversation, if one does. Raises NotFound."""
    if not theirs(visitor).filter(pk=conversation).exists():
        raise NotFound
    rows = Generation.objects.select_related("answer").filter(conversation=conversation)
    if generation is None:
        row = rows.filter(state__in=Generation.LIVE).first()
    elif (row := rows.filter(pk=generation).first()) is None:
        raise NotFound
    if row is None or row.answer is None:
        return None
    return StoredAnswer(generation=stored_generation(row), text=row.answer.text, owner=row.owner)


def page(visitor: UUID, after: str | None = None, query: str = "") -> Page:
    """The visitor's conversations, latest first; `after` is the `next` of the page before. Raises NotFound.

    The first page begins with all that are pinned. `query` is looked for as it is: in Japanese there are no words that
    an index could find.
    """
    rows = _with_live(theirs(visitor)).order_by("-updated", "-pk")
    if query:
        said = Message.objects.filter(conversation=OuterRef("pk"), text__icontains=query)
        rows = rows.filter(Q(title__icontains=query) | Exists(said))
    pinned = [] if after is not None else list(rows.filter(pinned=True))
    rows = rows.filter(pinned=False)
    if after is not None:
        updated, key = _cursor(after)
        rows = rows.filter(Q(updated__lt=updated) | Q(updated=updated, pk__lt=key))
    found = list(rows[: PAGE_SIZE + 1])
    last = found[PAGE_SIZE - 1] if len(found) > PAGE_SIZE else None
    return Page(
        conversations=[_stored_conversation(row) for row in (*pinned, *found[:PAGE_SIZE])],
        next=None if last is None else f"{last.updated.isoformat()}~{last.pk}",
    )


def _cursor(after: str) -> tuple[datetime, UUID]:
    updated, _, key = after.partition("~")
    try:
        found = datetime.fromisoformat(updated), UUID(key)
    except ValueError:
        raise NotFound from None
    if found[0].tzinfo is None:
        raise NotFound
    return found


def parents_of(conversation: UUID) -> dict[UUID, UUID | None]:
    """The tree, keys only: each message's parent, in the order in which the messages came."""
    rows = Message.objects.filter(conversation=conversation).order_by("created", "pk")
    return dict(rows.values_list("pk", "parent"))


def _path(conversation: UUID, message: UUID | None) -> list[UUID]:
    """From the root to `message`, keys only."""
    return _upwards(parents_of(conversation), message)


def _upwards(parents: dict[UUID, UUID | None], message: UUID | None) -> list[UUID]:
    path: list[UUID] = []
    while message is not None:
        if message not in parents:
            raise NotFound  # it was deleted
        path.append(message)
        message = parents[message]
    return path[::-1]


def _with_live(rows: QuerySet[Conversation]) -> QuerySet[Conversation]:
    live = Generation.objects.filter(conversation=OuterRef("pk"), state__in=Generation.LIVE)
    return rows.annotate(live=Subquery(live.values("pk")[:1]))


def _stored_conversation(row: Conversation) -> StoredConversation:
    live = getattr(row, "live", None)
    return StoredConversation(id=row.pk, title=row.title, updated=row.updated, live=live, pinned=row.pinned)


def _stored_message(row: Message, generation: Generation | None, siblings: list[UUID]) -> StoredMessage:
    given: Feedback | None = getattr(row, "feedback", None)
    feedback = None if given is None else Rating(value=cast(Literal[1, -1], given.value), comment=given.comment)
    return StoredMessage(
        id=row.pk,
        parent=row.parent_id,
        role=row.role,
        text=row.text,
        created=row.created,
        siblings=siblings,
        generation=None if generation is None else stored_generation(generation),
        feedback=feedback,
    )


def stored_generation(row: Generation) -> StoredGeneration:
    """State and figures of a run."""
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
        model=row.model,
    )
