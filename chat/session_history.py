"""The history in a session: temporary chats.

The rows of their generations are those of any other, but name no conversation and no answer: the figures stay when the
text is gone. What state a generation is in, its row says alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone
from msgspec import UNSET

from chat import generations, session_branches
from chat.acceptance import title_of
from chat.branches import turns_for_model
from chat.contract import INTERRUPTED
from chat.database import reading, writing
from chat.edits import latest_end
from chat.history import PROCESS, translated
from chat.models import Generation, Visitor
from chat.opening import opening
from chat.records import (
    Accepted,
    Asked,
    Branch,
    Caller,
    Changes,
    HistoryError,
    NotFound,
    NothingToContinue,
    NotOffered,
    Page,
    Question,
    Rating,
    Redo,
    StoredAnswer,
    TurnInProgress,
)
from chat.sessions import opened
from chat.temporary import LIMIT, Chat, Said, TemporaryChats
from llm.events import Finished
from llm.request import ChatMessage


class SessionHistory:
    """Keeps turns in the session that `Caller.temporary` names."""

    def __init__(self, owner: UUID = PROCESS) -> None:
        self.owner = owner
        self._keys: dict[UUID, str] = {}  # of the sessions that the turns of this process write to

    def keeps(self, generation: UUID) -> bool:
        """It was accepted here, and has not ended."""
        return generation in self._keys

    async def accepted(self, caller: Caller, frame: str) -> Accepted | None:
        with translated():
            return await reading(session_branches.earlier)(caller, frame)

    async def accept(self, asked: Asked) -> Accepted:
        with translated():
            accepted = await writing(self._accept)(asked)
        if accepted.new:
            self._keys[accepted.generation] = asked.caller.temporary
        return accepted

    async def started(self, generation: UUID) -> None:
        with translated():
            await writing(generations.begin)(self.owner, generation)

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        with translated():
            return await writing(self._checkpoint)(texts)

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        with translated():
            ended = await writing(self._finish)(generation, text, end)
        self._keys.pop(generation, None)
        return ended

    async def recover(self) -> int:
        return await writing(self._recover)()

    async def conversations(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        with translated():
            return await reading(session_branches.conversations)(caller)

    async def holds(self, caller: Caller, conversation: UUID) -> bool:
        with translated():
            return await reading(session_branches.holds)(caller, conversation)

    async def branch(
        self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False
    ) -> Branch:
        with translated():
            return await reading(session_branches.branch)(caller, conversation)

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        with translated():
            return await reading(session_branches.answer)(caller, conversation, generation)

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        with translated():
            return await reading(session_branches.owns)(caller, generation)

    async def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        with translated():
            return await writing(_delete)(caller, conversation)

    async def restore(self, caller: Caller, conversation: UUID) -> None:
        if not await self.holds(caller, conversation):
            raise NotFound

    async def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        if changes.pinned is not UNSET or changes.title is not UNSET:
            raise NotOffered
        with translated():
            await writing(_change)(caller.temporary, conversation, changes)

    async def delete_message(self, caller: Caller, message: UUID) -> UUID:
        raise NotOffered

    async def rate(self, caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
        raise NotOffered

    def _accept(self, asked: Asked) -> Accepted:
        try:
            return self._store(asked)
        except (IntegrityError, HistoryError) as error:
            if repeated := session_branches.earlier(asked.caller, asked.frame):
                return repeated
            if isinstance(error, HistoryError):
                raise
            raise TurnInProgress from None

    def _store(self, asked: Asked) -> Accepted:
        now = timezone.now()
        with opened(asked.caller.temporary, begin=isinstance(asked, Question)) as chats:
            chat, question, answer = _turn(asked, chats, now)
            answer.generations.append(asked.generation)
            chat.shown, chat.updated = answer.id, now
            visitor, _ = Visitor.objects.get_or_create(pk=asked.caller.visitor)
            Generation.objects.create(pk=asked.generation, visitor=visitor, frame=asked.frame, owner=self.owner)
            _bound(chats, answer)
            said = turns_for_model((each.role, each.text) for each in chat.path(question.id))
            prompt = (*opening(chat.settings), *said)
        return Accepted(
            visitor=asked.caller.visitor,
            conversation=chat.id,
            message=question.id,
            answer=answer.id,
            generation=asked.generation,
            text=answer.text,
            prompt=(*prompt, ChatMessage("assistant", answer.text)) if answer.text else prompt,
            settings=chat.settings,
        )

    @transaction.atomic
    def _checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        live = generations.hold(self.owner, texts)
        gone = set(texts) - set(live)
        for key in sorted({self._keys[generation] for generation in live}):
            gone |= _write(key, {generation: texts[generation] for generation in live if self._keys[generation] == key})
        return gone

    @transaction.atomic
    def _finish(self, generation: UUID, text: str, end: Finished) -> bool:
        if not generations.hold(self.owner, [generation]):
            return generations.ended_so(generations.own(self.owner, [generation]), end)
        _write(self._keys[generation], {generation: text})  # if the chat is gone, its figures are what stays
        return bool(generations.end(generations.living(self.owner, [generation]), end))

    def _recover(self) -> int:
        others = Generation.objects.filter(conversation=None, state__in=Generation.LIVE).exclude(owner=self.owner)
        return generations.end(others, INTERRUPTED)


def _change(key: str, conversation: UUID, changes: Changes) -> None:
    with opened(key) as chats:
        chat = chats.chat(conversation)
        if changes.settings is not UNSET:
            chat.settings = changes.settings
        if changes.shown is not UNSET:
            chat.shown = latest_end(chat.parents, changes.shown)


def _delete(caller: Caller, conversation: UUID) -> UUID | None:
    with opened(caller.temporary) as chats:
        chat = chats.chat(conversation)
        chats.chats.remove(chat)
        return next(iter(session_branches.live(TemporaryChats([chat]))), None)


def _write(key: str, texts: Mapping[UUID, str]) -> set[UUID]:
    """Put the texts of answers into the session `key`; those whose chat is gone come back."""
    gone: set[UUID] = set()
    with contextlib.suppress(NotFound), opened(key) as chats:
        for generation, text in texts.items():
            try:
                _, answer = chats.written_by(generation)
            except NotFound:
                gone.add(generation)
            else:
                answer.text = text
                _bound(chats, answer)
        return gone
    return set(texts)


def _turn(asked: Asked, chats: TemporaryChats, now: datetime) -> tuple[Chat, Said, Said]:
    """The chat, the question and the answer that it is about, made if they are new. Raises HistoryError."""
    if isinstance(asked, Question):
        if asked.conversation is None:
            chats.chats.append(Chat(title=title_of(asked.text), updated=now, settings=asked.settings))
        chat = chats.chats[-1] if asked.conversation is None else chats.chat(asked.conversation)
        _check_idle(chat)
        question = chat.ask(asked.text, asked.parent if asked.branches else chat.shown, now)
        return chat, question, chat.begin_answer(question, now)
    chat = chats.holder(asked.answer)
    answer = chat.answer(asked.answer)
    question = chat.question(answer)
    _check_idle(chat)
    if isinstance(asked, Redo):
        return chat, question, chat.begin_answer(question, now)
    state = Generation.objects.filter(pk__in=answer.generations[-1:]).values_list("state", flat=True).first()
    if state == Generation.State.STOP or not answer.text:
        raise NothingToContinue
    return chat, question, answer


def _bound(chats: TemporaryChats, newest: Said) -> None:
    if chats.size > LIMIT:
        chats.cut(session_branches.live(chats), newest)


def _check_idle(chat: Chat) -> None:
    if session_branches.live(TemporaryChats([chat])):
        raise TurnInProgress
