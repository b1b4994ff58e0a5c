"""Reads kept conversations: lists of them, the shown branch of one, single answers.

Writes nothing and takes no locks, so what is read in two queries may have changed between them; where that matters,
the order of the queries makes it harmless.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal, cast
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from chat.errors import NotFound
from chat.history import generations, tree
from chat.history.values import (
    Branch,
    Caller,
    Page,
    Rating,
    StoredAnswer,
    StoredConversation,
    StoredMessage,
    from_json,
)
from chat.models import Conversation, Feedback, Generation, Message

PAGE_SIZE = 50
"""How many conversations a page of the list has, and how many messages a page of a branch."""


def theirs(caller: Caller) -> QuerySet[Conversation]:
    """Return the caller's conversations; a deleted one is nobody's."""
    return Conversation.objects.filter(visitor=caller.visitor, deleted=None)


def holds(caller: Caller, conversation: UUID) -> bool:
    """Tell whether there is this conversation, and it is the caller's."""
    return theirs(caller).filter(pk=conversation).exists()


def owns(caller: Caller, row: Generation) -> bool:
    """Tell whether the generation is in a conversation of the caller."""
    found = row.conversation
    return found is not None and found.visitor_id == caller.visitor and found.deleted is None


def said(conversation: UUID, question: UUID) -> Iterator[tuple[str, str]]:
    """Return roles and texts of the branch that ends in `question`. Raises NotFound."""
    path = tree.path(parents_of(conversation), question)
    messages = Message.objects.in_bulk(path)
    return ((messages[key].role, messages[key].text) for key in path)


def branch(caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False) -> Branch:
    """Return the end of the shown branch, or what is before one of its messages, or all of it. Raises NotFound."""
    while (found := _branch(caller, conversation, before, whole=whole)) is None:
        pass
    return found


def _branch(caller: Caller, conversation: UUID, before: UUID | None, *, whole: bool) -> Branch | None:
    """Return None if messages of it were deleted while it was read."""
    row = _with_live(theirs(caller).filter(pk=conversation)).first()
    if row is None:
        raise NotFound
    parents = parents_of(row.pk)
    if row.head_id is not None and row.head_id not in parents:
        return None
    path = tree.path(parents, row.head_id)
    if before is not None:
        if before not in path:
            raise NotFound
        path = path[: path.index(before)]
    earlier = len(path) > PAGE_SIZE and not whole
    path = path[-PAGE_SIZE:] if earlier else path
    # Before the texts: an answer that ends in between is then reported as running, and whoever asks for the rest of
    # it gets the whole; the other way round it would be reported as complete, without its text.
    written_by = {each.answer_id: each for each in Generation.objects.filter(answer__in=path).order_by("created")}
    messages = Message.objects.select_related("feedback").in_bulk(path)
    if len(messages) < len(path):
        return None
    versions = tree.children(parents)
    return Branch(
        conversation=_stored_conversation(row),
        messages=[_stored_message(messages[key], written_by.get(key), versions[parents[key]]) for key in path],
        earlier=path[0] if earlier else None,
        settings=from_json(row.settings),
    )


def answer(caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
    """Return the answer of `generation`, or of the one under way, if there is one. Raises NotFound."""
    if not holds(caller, conversation):
        raise NotFound
    rows = Generation.objects.select_related("answer").filter(conversation=conversation)
    if generation is None:
        row = rows.filter(state__in=Generation.LIVE).first()
    elif (row := rows.filter(pk=generation).first()) is None:
        raise NotFound
    if row is None or row.answer is None:
        return None
    return StoredAnswer(generation=generations.stored(row), text=row.answer.text, process=row.process)


def page(caller: Caller, after: str | None = None, query: str = "") -> Page:
    """Return the caller's conversations, latest first; `after` is the `next` of the page before. Raises NotFound.

    The first page begins with all that are pinned. `query` is looked for as it is: in Japanese there are no words that
    an index could find.
    """
    rows = _with_live(theirs(caller)).order_by("-updated", "-pk")
    if query:
        texts = Message.objects.filter(conversation=OuterRef("pk"), text__icontains=query)
        rows = rows.filter(Q(title__icontains=query) | Exists(texts))
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
        found = datetime.fromisoformat(updated)
        if found.tzinfo is None:
            raise NotFound
        return found.astimezone(UTC), UUID(key)
    except (ValueError, OverflowError):  # there may be no such moment in another time zone
        raise NotFound from None


def parents_of(conversation: UUID) -> dict[UUID, UUID | None]:
    """Return the tree of its messages."""
    rows = Message.objects.filter(conversation=conversation).order_by("created", "pk")
    return dict(rows.values_list("pk", "parent"))


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
        generation=None if generation is None else generations.stored(generation),
        feedback=feedback,
    )
