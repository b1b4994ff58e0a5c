"""Reads temporary chats. Writes nothing and takes no locks."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from chat.errors import NotFound
from chat.history import generations, tree
from chat.history.temporary.chats import TemporaryChat
from chat.history.temporary.sessions import load
from chat.history.values import Branch, Caller, Page, StoredAnswer, StoredConversation, StoredMessage
from chat.models import Generation


def live(*chats: TemporaryChat) -> set[UUID]:
    """Return the generations under way in these chats."""
    writers = {generation for chat in chats for generation in chat.writers}
    return set(Generation.objects.filter(pk__in=writers, state__in=Generation.LIVE).values_list("pk", flat=True))


def holds(caller: Caller, conversation: UUID) -> bool:
    """Tell whether it is a chat of the caller's session."""
    return any(chat.id == conversation for chat in load(caller).chats)


def owns(caller: Caller, row: Generation) -> bool:
    """Tell whether the generation writes, or wrote, in a chat of the caller's session."""
    return any(row.pk in message.generations for chat in load(caller).chats for message in chat.messages)


def answer(caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
    """Return the answer of `generation`, or of the one under way, if there is one. Raises NotFound."""
    if generation is None:
        generation = next(iter(live(load(caller).chat(conversation))), None)
        if generation is None:
            return None
    row = Generation.objects.filter(pk=generation).first()
    chat, answer = load(caller).written_by(generation)  # after its state: see `_with_rows`
    if row is None or chat.id != conversation:
        raise NotFound
    return StoredAnswer(generation=generations.stored(row), text=answer.text, process=row.process)


def branch(caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False) -> Branch:
    """Return the shown branch, always all of it: what a session holds is little. Raises NotFound."""
    chat, rows = _with_rows(caller, conversation)
    versions = tree.children(chat.parents)
    return Branch(
        conversation=_stored(chat, {key for key, row in rows.items() if row.state in Generation.LIVE}),
        messages=[
            StoredMessage(
                id=each.id,
                parent=each.parent,
                role=each.role,
                text=each.text,
                created=each.created,
                siblings=versions[each.parent],
                generation=generations.stored(rows[each.generations[-1]]) if each.generations else None,
            )
            for each in chat.path(chat.head)
        ],
        settings=chat.settings,
    )


def page(caller: Caller, after: str | None = None, query: str = "") -> Page:
    """Return all of them, latest first, on the first page of the list; they are not searched."""
    chats = [] if after is not None or query else load(caller).chats
    found, running = sorted(chats, key=lambda chat: chat.updated, reverse=True), live(*chats)
    return Page(conversations=[_stored(chat, running) for chat in found])


def _with_rows(caller: Caller, conversation: UUID) -> tuple[TemporaryChat, dict[UUID, Generation]]:
    """Return a chat and the rows of its `writers`.

    The texts are read after the states: an answer that ends in between is then reported as running, and whoever asks
    for the rest of it gets the whole; the other way round it would be reported as complete, without its text.
    """
    rows: dict[UUID, Generation] = {}
    while True:
        chat = load(caller).chat(conversation)
        writers = chat.writers
        if writers <= set(rows):
            return chat, rows
        rows = Generation.objects.in_bulk(writers)
        if writers - set(rows):
            raise NotFound  # its visitor is gone


def _stored(chat: TemporaryChat, live: Collection[UUID]) -> StoredConversation:
    under_way = next(iter(chat.writers & set(live)), None)
    return StoredConversation(id=chat.id, title=chat.title, updated=chat.updated, live=under_way, temporary=True)
