"""The temporary chats of one session as values: trees of messages, within a bound.

Knows no database and no session; the state of a generation is in its row, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TypeVar
from uuid import UUID

import msgspec

from chat.errors import NotFound
from chat.history import tree
from chat.history.ids import new_temporary_id
from chat.history.values import ConversationSettings

T = TypeVar("T")

LIMIT = 256 * 1024
"""Bytes of text of one session, in UTF-8."""


class TemporaryMessage(msgspec.Struct, kw_only=True):
    """A question or an answer. An answer names the generations that wrote it, the last one last."""

    id: UUID = msgspec.field(default_factory=new_temporary_id)
    parent: UUID | None
    role: str
    text: str = ""
    created: datetime
    generations: list[UUID] = []

    @property
    def size(self) -> int:
        return len(self.text.encode())


class TemporaryChat(msgspec.Struct, kw_only=True):
    """A conversation: its messages in the order in which they came, and the last one of the shown branch."""

    id: UUID = msgspec.field(default_factory=new_temporary_id)
    title: str
    updated: datetime
    head: UUID | None = None
    messages: list[TemporaryMessage] = []
    settings: ConversationSettings = ConversationSettings()

    @property
    def parents(self) -> dict[UUID, UUID | None]:
        """The tree of its messages."""
        return {message.id: message.parent for message in self.messages}

    @property
    def writers(self) -> set[UUID]:
        """The generation that wrote each answer last, or writes it now."""
        return {message.generations[-1] for message in self.messages if message.generations}

    def message(self, id: UUID | None) -> TemporaryMessage:
        """Raises NotFound."""
        return _first(self.messages, lambda message: message.id == id)

    def path(self, end: UUID | None) -> list[TemporaryMessage]:
        """Return the branch from the root to `end`."""
        by_id = {message.id: message for message in self.messages}
        return [by_id[key] for key in tree.path(self.parents, end)]

    def add(self, message: TemporaryMessage) -> TemporaryMessage:
        self.messages.append(message)
        return message

    def drop(self, answer: TemporaryMessage) -> None:
        """Forget an answer, and its question if that has no other; what follows it begins anew."""
        gone = {answer.id}
        if not any(each.parent == answer.parent and each.id != answer.id for each in self.messages) and answer.parent:
            gone.add(answer.parent)
        self.messages = [each for each in self.messages if each.id not in gone]
        for message in self.messages:
            if message.parent in gone:
                message.parent = None
        if self.head in gone:
            answers = [each.id for each in self.messages if each.role == "assistant"]
            self.head = answers[-1] if answers else None


class TemporaryChats(msgspec.Struct):
    """The chats of one session."""

    chats: list[TemporaryChat] = []

    @property
    def size(self) -> int:
        return sum(message.size for chat in self.chats for message in chat.messages)

    def chat(self, id: UUID) -> TemporaryChat:
        """Raises NotFound."""
        return _first(self.chats, lambda chat: chat.id == id)

    def find(self, wanted: Callable[[TemporaryMessage], bool]) -> tuple[TemporaryChat, TemporaryMessage]:
        """Return the first such message and its chat. Raises NotFound."""
        messages = [(chat, message) for chat in self.chats for message in chat.messages]
        return _first(messages, lambda found: wanted(found[1]))

    def written_by(self, generation: UUID) -> tuple[TemporaryChat, TemporaryMessage]:
        """Return the answer that a generation writes, or wrote, and its chat. Raises NotFound."""
        return self.find(lambda message: generation in message.generations)

    def cut(self, live: Collection[UUID], newest: TemporaryMessage) -> None:
        """Forget the oldest answers, and questions that have no other, until the text fits LIMIT.

        Answers that `live` generations write stay. If they alone are too long, `newest` loses its end.
        """
        answers = [(chat, each) for chat in self.chats for each in chat.messages if each.role == "assistant"]
        for chat, answer in sorted(answers, key=lambda each: each[1].created):
            if self.size <= LIMIT:
                break
            if answer is not newest and not set(live) & {*answer.generations}:
                chat.drop(answer)
        self.chats = [chat for chat in self.chats if chat.messages]
        if (over := self.size - LIMIT) > 0:
            newest.text = newest.text.encode()[: max(0, newest.size - over)].decode(errors="ignore")


def _first(items: list[T], wanted: Callable[[T], bool]) -> T:
    for item in items:
        if wanted(item):
            return item
    raise NotFound
