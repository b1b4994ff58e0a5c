"""Changes kept conversations for their visitor: titles, pins, settings, branches, deletions, ratings.

Each function is one transaction. Knows from its row whether an answer is under way; stopping it is its turn's business.
"""

from __future__ import annotations

from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone
from msgspec import UNSET

from chat.errors import NotFound, TurnInProgress
from chat.history import tree
from chat.history.database import reading
from chat.history.values import Caller, Changes, Rating, as_json
from chat.models import Conversation, Feedback, Generation, Message


@transaction.atomic
def change(caller: Caller, conversation: UUID, changes: Changes) -> None:
    """Change the fields that are given. Raises NotFound."""
    row = reading.theirs(caller).select_for_update().filter(pk=conversation).first()
    if row is None:
        raise NotFound
    fields: dict[str, object] = {}
    if changes.title is not UNSET:
        fields["title"] = " ".join(changes.title.split())
    if changes.pinned is not UNSET:
        fields["pinned"] = changes.pinned
    if changes.settings is not UNSET:
        fields["settings"] = as_json(changes.settings)
    if changes.shown is not UNSET:
        fields["head"] = tree.latest_end(reading.parents_of(row.pk), changes.shown)
    Conversation.objects.filter(pk=row.pk).update(**fields)


@transaction.atomic
def delete(caller: Caller, conversation: UUID) -> UUID | None:
    """Mark it as deleted and return the generation under way in it. Raises NotFound.

    A request that is being accepted finds it deleted.
    """
    if not reading.theirs(caller).filter(pk=conversation).update(deleted=timezone.now()):
        raise NotFound
    live = Generation.objects.filter(conversation=conversation, state__in=Generation.LIVE)
    return live.values_list("pk", flat=True).first()


def restore(caller: Caller, conversation: UUID) -> None:
    """Undo its deletion. Raises NotFound if it is gone."""
    if not Conversation.objects.filter(pk=conversation, visitor=caller.visitor).update(deleted=None):
        raise NotFound


@transaction.atomic
def delete_message(caller: Caller, message: UUID) -> UUID:
    """Delete a message and all that follows it, and a conversation that has no other; return the conversation.

    Raises NotFound, TurnInProgress.
    """
    found = _message(caller, message)
    conversation = reading.theirs(caller).select_for_update().filter(pk=found.conversation_id).first()
    parents = {} if conversation is None else reading.parents_of(conversation.pk)
    if conversation is None or found.pk not in parents:  # somebody was faster
        raise NotFound
    gone = tree.subtree(parents, found.pk)
    if Generation.objects.filter(answer__in=gone, state__in=Generation.LIVE).exists():
        raise TurnInProgress
    kept = {key: parent for key, parent in parents.items() if key not in gone}
    if conversation.head_id in gone:
        beside = tree.children(kept).get(found.parent_id)
        end = beside[-1] if beside else found.parent_id
        head = None if end is None else tree.latest_end(kept, end)
        Conversation.objects.filter(pk=conversation.pk).update(head=head)
    Message.objects.filter(pk__in=gone).delete()
    if not kept:
        Conversation.objects.filter(pk=conversation.pk).update(deleted=timezone.now())
    return conversation.pk


def rate(caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
    """Store the caller's rating of an answer, None: remove it; return the conversation. Raises NotFound."""
    try:
        return _rate(caller, answer, rating)
    except IntegrityError:  # the answer was deleted since it was looked for
        raise NotFound from None


@transaction.atomic
def _rate(caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
    found = _message(caller, answer)
    if found.role != Message.Role.ASSISTANT:
        raise NotFound
    if rating is None:
        Feedback.objects.filter(answer=found).delete()
    else:
        Feedback.objects.update_or_create(answer=found, defaults={"value": rating.value, "comment": rating.comment})
    return found.conversation_id


def _message(caller: Caller, message: UUID) -> Message:
    found = Message.objects.filter(pk=message, conversation__in=reading.theirs(caller)).first()
    if found is None:
        raise NotFound
    return found
