"""Reading what temporary chats say. Writes nothing and takes no locks."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from chat.branches import stored_generation
from chat.models import Generation
from chat.records import (
    Accepted,
    Branch,
    Caller,
    NotFound,
    Page,
    StoredAnswer,
    StoredConversation,
    StoredMessage,
)
from chat.sessions import read
from chat.temporary import Chat, TemporaryChats


def live(chats: TemporaryChats) -> set[UUID]:
    """The generations that write in these chats."""
    latest = [message.generations[-1] for chat in chats.chats for message in chat.messages if message.generations]
    return set(Generation.objects.filter(pk__in=latest, state__in=Generation.LIVE).values_list("pk", flat=True))


def earlier(caller: Caller, frame: str) -> Accepted | None:
    """What a frame of this id led to before. Raises NotFound if that is gone."""
    row = Generation.objects.filter(visitor=caller.visitor, frame=frame, conversation=None).first()
    if row is None:
        return None
    chat, answer = read(caller).written_by(row.pk)
    return Accepted(
        visitor=caller.visitor,
        conversation=chat.id,
        message=chat.question(answer).id,
        answer=answer.id,
        generation=row.pk,
        new=False,
    )


def holds(caller: Caller, conversation: UUID) -> bool:
    """It is a chat of the caller's session."""
    return any(chat.id == conversation for chat in read(caller).chats)


def owns(caller: Caller, generation: UUID) -> bool:
    """It writes, or wrote, in a chat of the caller's session."""
    try:
        read(caller).written_by(generation)
    except NotFound:
        return False
    return True


def answer(caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
    """The answer of `generation`, or of the one that lives in the conversation, if one does. Raises NotFound."""
    if generation is None:
        generation = next(iter(live(TemporaryChats([read(caller).chat(conversation)]))), None)
        if generation is None:
            return None
    row = Generation.objects.filter(pk=generation).first()
    if row is None:
        raise NotFound
    answer = read(caller).chat(conversation).written_by(generation)  # after its state: see `_with_rows`
    return StoredAnswer(generation=stored_generation(row), text=answer.text, owner=row.owner)


def branch(caller: Caller, conversation: UUID) -> Branch:
    """The shown branch, all of it: what a session holds is little. Raises NotFound."""
    chat, rows = _with_rows(caller, conversation)
    parents = chat.parents
    return Branch(
        conversation=_stored(chat, {key for key, row in rows.items() if row.state in Generation.LIVE}),
        messages=[
            StoredMessage(
                id=each.id,
                parent=each.parent,
                role=each.role,
                text=each.text,
                created=each.created,
                siblings=[key for key, parent in parents.items() if parent == each.parent],
                generation=next((stored_generation(rows[key]) for key in each.generations[-1:]), None),
            )
            for each in chat.path(chat.shown)
        ],
        settings=chat.settings,
    )


def _with_rows(caller: Caller, conversation: UUID) -> tuple[Chat, dict[UUID, Generation]]:
    """A chat and the rows of the last generation of each answer.

    The texts are read after the states: an answer that ends in between is then reported as running, and whoever asks
    for the rest of it gets the whole; the other way round it would be reported as complete, without its text.
    """
    rows: dict[UUID, Generation] = {}
    while True:
        chat = read(caller).chat(conversation)
        latest = {message.generations[-1] for message in chat.messages if message.generations}
        if latest <= set(rows):
            return chat, rows
        rows = Generation.objects.in_bulk(latest)
        if latest - set(rows):
            raise NotFound  # its visitor is gone


def conversations(caller: Caller) -> Page:
    """All of them, latest first."""
    chats = read(caller)
    found, running = sorted(chats.chats, key=lambda chat: chat.updated, reverse=True), live(chats)
    return Page(conversations=[_stored(chat, running) for chat in found])


def _stored(chat: Chat, live: Collection[UUID]) -> StoredConversation:
    written = (key for message in chat.messages for key in message.generations[-1:])
    return StoredConversation(
        id=chat.id,
        title=chat.title,
        updated=chat.updated,
        live=next((key for key in written if key in live), None),
        temporary=True,
    )
