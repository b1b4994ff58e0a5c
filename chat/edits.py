"""What a visitor changes in their conversations, as rows: names, pins, settings, branches, deletions, feedback.

Each function is one transaction. Whether an answer still runs, its row says; stopping it is its turn's business.
"""

from __future__ import annotations

from uuid import UUID

import msgspec
from django.db import IntegrityError, transaction
from django.utils import timezone
from msgspec import UNSET

from chat import branches
from chat.models import Conversation, Feedback, Generation, Message
from chat.records import Changes, NotFound, Rating, TurnInProgress


@transaction.atomic
def change(visitor: UUID, conversation: UUID, changes: Changes) -> None:
    """Raises NotFound."""
    row = branches.theirs(visitor).select_for_update().filter(pk=conversation).first()
    if row is None:
        raise NotFound
    fields: dict[str, object] = {}
    if changes.title is not UNSET:
        fields["title"] = " ".join(changes.title.split())
    if changes.pinned is not UNSET:
        fields["pinned"] = changes.pinned
    if changes.settings is not UNSET:
        fields["settings"] = msgspec.to_builtins(changes.settings)
    if changes.shown is not UNSET:
        fields["shown"] = latest_end(branches.parents_of(row.pk), changes.shown)
    Conversation.objects.filter(pk=row.pk).update(**fields)


@transaction.atomic
def delete(visitor: UUID, conversation: UUID) -> UUID | None:
    """Raises NotFound. The generation that lives in it; one that is being accepted finds it deleted."""
    if not branches.theirs(visitor).filter(pk=conversation).update(deleted=timezone.now()):
        raise NotFound
    live = Generation.objects.filter(conversation=conversation, state__in=Generation.LIVE)
    return live.values_list("pk", flat=True).first()


@transaction.atomic
def delete_message(visitor: UUID, message: UUID) -> UUID:
    """Raises NotFound, TurnInProgress. A conversation without any message is deleted with it."""
    found = _message(visitor, message)
    conversation = branches.theirs(visitor).select_for_update().filter(pk=found.conversation_id).first()
    parents = {} if conversation is None else branches.parents_of(conversation.pk)
    if conversation is None or found.pk not in parents:  # somebody was faster
        raise NotFound
    gone = below(parents, found.pk)
    if Generation.objects.filter(answer__in=gone, state__in=Generation.LIVE).exists():
        raise TurnInProgress
    kept = {key: parent for key, parent in parents.items() if key not in gone}
    if conversation.shown_id in gone:
        beside = [key for key, parent in kept.items() if parent == found.parent_id]
        end = beside[-1] if beside else found.parent_id
        shown = None if end is None else latest_end(kept, end)
        Conversation.objects.filter(pk=conversation.pk).update(shown=shown)
    Message.objects.filter(pk__in=gone).delete()
    if not kept:
        Conversation.objects.filter(pk=conversation.pk).update(deleted=timezone.now())
    return conversation.pk


def rate(visitor: UUID, answer: UUID, rating: Rating | None) -> UUID:
    """Raises NotFound."""
    try:
        return _rate(visitor, answer, rating)
    except IntegrityError:  # the answer was deleted since it was looked for
        raise NotFound from None


@transaction.atomic
def _rate(visitor: UUID, answer: UUID, rating: Rating | None) -> UUID:
    found = _message(visitor, answer)
    if found.role != Message.Role.ASSISTANT:
        raise NotFound
    if rating is None:
        Feedback.objects.filter(answer=found).delete()
    else:
        Feedback.objects.update_or_create(answer=found, defaults={"value": rating.value, "comment": rating.comment})
    return found.conversation_id


def latest_end(parents: dict[UUID, UUID | None], message: UUID) -> UUID:
    """Down from a message, always to the latest child. Raises NotFound.

    `parents` is in the order in which the messages came, so a later child takes an earlier one's place.
    """
    if message not in parents:
        raise NotFound
    latest = {parent: key for key, parent in parents.items()}
    while message in latest:
        message = latest[message]
    return message


def below(parents: dict[UUID, UUID | None], message: UUID) -> set[UUID]:
    """A message and all that follows it."""
    children: dict[UUID | None, list[UUID]] = {}
    for key, parent in parents.items():
        children.setdefault(parent, []).append(key)
    gone: set[UUID] = set()
    left = [message]
    while left:
        gone.add(key := left.pop())
        left += children.get(key, [])
    return gone


def _message(visitor: UUID, message: UUID) -> Message:
    found = Message.objects.filter(pk=message, conversation__in=branches.theirs(visitor)).first()
    if found is None:
        raise NotFound
    return found
