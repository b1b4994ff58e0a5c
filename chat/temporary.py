"""The temporary chats of one session, as values: trees of messages, within a bound.

Knows no database and no session; what became of a generation is in its row, as everywhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import datetime
from uuid import UUID, uuid4

import msgspec

from chat.records import BadParent, NotFound, Settings

LIMIT = 256 * 1024
"""Bytes of text of one session, in UTF-8."""

VERSION = 8
"""Of the ids of temporary chats and their messages (RFC 9562: own use), so that an id tells where to look for it."""


def new_id() -> UUID:
    return UUID(int=uuid4().int & ~(0xF << 76) | VERSION << 76)


def is_temporary(id: UUID) -> bool:
    """A temporary chat, or a message of one, has this id, or had it."""
    return id.version == VERSION


class Said(msgspec.Struct, kw_only=True):
    """A message; an answer names the generations that wrote it, the last one last."""

    id: UUID = msgspec.field(default_factory=new_id)
    parent: UUID | None
    role: str
    text: str = ""
    created: datetime
    generations: list[UUID] = []

    @property
    def size(self) -> int:
        return len(self.text.encode())


class Chat(msgspec.Struct, kw_only=True):
    """A conversation: its messages in the order they came, and the end of the branch that is shown."""

    id: UUID = msgspec.field(default_factory=new_id)
    title: str
    updated: datetime
    shown: UUID | None = None
    messages: list[Said] = []
    settings: Settings = Settings()

    @property
    def size(self) -> int:
        return sum(message.size for message in self.messages)

    def answer(self, id: UUID) -> Said:
        """Raises NotFound."""
        found = self._find(id)
        if found.role != "assistant":
            raise NotFound
        return found

    def written_by(self, generation: UUID) -> Said:
        """The answer a generation writes, or wrote. Raises NotFound."""
        for message in self.messages:
            if generation in message.generations:
                return message
        raise NotFound

    def question(self, answer: Said) -> Said:
        """What it answers."""
        if answer.parent is None:
            raise NotFound
        return self._find(answer.parent)

    def ask(self, text: str, parent: UUID | None, now: datetime) -> Said:
        """A further question below the answer `parent`. Raises NotFound or BadParent."""
        if parent is not None and self._find(parent).role != "assistant":
            raise BadParent
        self.messages.append(Said(parent=parent, role="user", text=text, created=now))
        return self.messages[-1]

    def begin_answer(self, question: Said, now: datetime) -> Said:
        """A further answer to it, empty yet."""
        self.messages.append(Said(parent=question.id, role="assistant", created=now))
        return self.messages[-1]

    @property
    def parents(self) -> dict[UUID, UUID | None]:
        """Each message's parent, in the order in which they came."""
        return {message.id: message.parent for message in self.messages}

    def path(self, end: UUID | None) -> list[Said]:
        """From the root to `end`."""
        by_id = {message.id: message for message in self.messages}
        path: list[Said] = []
        while end is not None:
            path.append(by_id[end])
            end = by_id[end].parent
        return path[::-1]

    def drop(self, answer: Said) -> None:
        """Forget an answer, and its question if it was the only answer to it; what follows it begins anew."""
        gone = {answer.id}
        if not any(each.parent == answer.parent and each.id != answer.id for each in self.messages) and answer.parent:
            gone.add(answer.parent)
        self.messages = [each for each in self.messages if each.id not in gone]
        for message in self.messages:
            if message.parent in gone:
                message.parent = None
        if self.shown in gone:
            answers = [each.id for each in self.messages if each.role == "assistant"]
            self.shown = answers[-1] if answers else None

    def _find(self, id: UUID) -> Said:
        for message in self.messages:
            if message.id == id:
                return message
        raise NotFound


class TemporaryChats(msgspec.Struct):
    """Those of one session."""

    chats: list[Chat] = []

    def chat(self, id: UUID) -> Chat:
        """Raises NotFound."""
        for chat in self.chats:
            if chat.id == id:
                return chat
        raise NotFound

    def holder(self, message: UUID) -> Chat:
        """The chat a message is in. Raises NotFound."""
        for chat in self.chats:
            if any(each.id == message for each in chat.messages):
                return chat
        raise NotFound

    def written_by(self, generation: UUID) -> tuple[Chat, Said]:
        """The answer a generation writes, or wrote. Raises NotFound."""
        for chat in self.chats:
            with contextlib.suppress(NotFound):
                return chat, chat.written_by(generation)
        raise NotFound

    @property
    def size(self) -> int:
        return sum(chat.size for chat in self.chats)

    def cut(self, live: Collection[UUID], newest: Said) -> None:
        """Forget the oldest answers, and questions that have no other, until the text fits LIMIT.

        Those that `live` generations write stay. If they alone are too long, `newest` loses its end.
        """
        for chat, answer in sorted(self._answers(), key=lambda each: each[1].created):
            if self.size <= LIMIT:
                break
            if answer is not newest and not set(live) & {*answer.generations}:
                chat.drop(answer)
        self.chats = [chat for chat in self.chats if chat.messages]
        if (over := self.size - LIMIT) > 0:
            newest.text = newest.text.encode()[: max(0, newest.size - over)].decode(errors="ignore")

    def _answers(self) -> Iterator[tuple[Chat, Said]]:
        for chat in self.chats:
            for message in chat.messages:
                if message.role == "assistant":
                    yield chat, message
