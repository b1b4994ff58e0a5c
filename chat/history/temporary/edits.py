"""Changes temporary chats for their visitor. Titles and pins are not offered in them."""

from __future__ import annotations

from uuid import UUID

from msgspec import UNSET

from chat.errors import NotOffered
from chat.history import tree
from chat.history.temporary import reading
from chat.history.temporary.sessions import opened
from chat.history.values import Caller, Changes


def change(caller: Caller, conversation: UUID, changes: Changes) -> None:
    """Change settings, or which branch is shown. Raises NotFound, NotOffered."""
    if changes.pinned is not UNSET or changes.title is not UNSET:
        raise NotOffered
    with opened(caller.temporary) as chats:
        chat = chats.chat(conversation)
        if changes.settings is not UNSET:
            chat.settings = changes.settings
        if changes.shown is not UNSET:
            chat.head = tree.latest_end(chat.parents, changes.shown)


def delete(caller: Caller, conversation: UUID) -> UUID | None:
    """Delete a chat at once and return the generation under way in it. Raises NotFound."""
    with opened(caller.temporary) as chats:
        chat = chats.chat(conversation)
        chats.chats.remove(chat)
        return next(iter(reading.live(chat)), None)
