"""What was said, kept: the contract of a history, and the one in the database.

Knows no sockets, no frames and no model. Every row of a turn is written here: its first ones in one transaction, its
last ones in another, and only by the process that owns the turn.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Iterator, Mapping
from typing import Protocol
from uuid import UUID

from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import QuerySet
from django.utils import timezone

from chat import branches
from chat.database import reading, writing
from chat.models import TITLE_LENGTH, Conversation, Generation, Message, Visitor
from chat.records import (
    Accepted,
    Asked,
    BadParent,
    Branch,
    Continue,
    HistoryError,
    HistoryUnavailable,
    NotFound,
    NothingToContinue,
    Page,
    Question,
    Redo,
    StoredAnswer,
    TurnInProgress,
)
from llm.events import Finished
from llm.request import ChatMessage

PROCESS = uuid.uuid4()
"""Names this process in the rows of the turns it runs."""

INTERRUPTED = Finished(
    reason="interrupted", code="interrupted", message="The server stopped while this answer was being written."
)


class History(Protocol):
    """Where turns are kept. A visitor's id comes with every question: what is not theirs is not found.

    Everything raises HistoryUnavailable where trying again can help.
    """

    async def accepted(self, visitor: UUID, frame: str) -> Accepted | None:
        """What an earlier frame of this id led to."""

    async def accept(self, asked: Asked) -> Accepted:
        """Store question, empty answer and generation (of these what is new), all or nothing. Raises HistoryError."""

    async def started(self, generation: UUID) -> None:
        """It left the queue."""

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        """Store the text so far of running generations, all or nothing; those that live here no longer come back."""

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        """Store the end. False if it has one already, or belongs to another process: then nothing was written."""

    async def recover(self) -> int:
        """End the live generations of processes that are gone; how many there were."""

    async def conversations(self, visitor: UUID, after: str | None = None) -> Page:
        """The visitor's conversations, latest first, a page of them. Raises NotFound for a wrong `after`."""

    async def branch(self, visitor: UUID, conversation: UUID) -> Branch:
        """The shown branch of a conversation. Raises NotFound."""

    async def answer(self, visitor: UUID, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        """The answer of a generation, or of the one that lives in the conversation, if one does. Raises NotFound."""

    async def owns(self, visitor: UUID, generation: UUID) -> bool:
        """The generation is in a conversation of this visitor."""


class DatabaseHistory:
    """Keeps turns in the tables of `chat.models`."""

    def __init__(self, owner: UUID = PROCESS) -> None:
        self.owner = owner

    async def accepted(self, visitor: UUID, frame: str) -> Accepted | None:
        with _translated():
            return await reading(_accepted)(visitor, frame)

    async def accept(self, asked: Asked) -> Accepted:
        with _translated():
            return await writing(self._accept)(asked)

    async def started(self, generation: UUID) -> None:
        with _translated():
            await writing(self._started)(generation)

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        with _translated():
            return await writing(self._checkpoint)(texts)

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        with _translated():
            return await writing(self._finish)(generation, text, end)

    async def recover(self) -> int:
        return await writing(self._recover)()

    async def conversations(self, visitor: UUID, after: str | None = None) -> Page:
        with _translated():
            return await reading(branches.page)(visitor, after)

    async def branch(self, visitor: UUID, conversation: UUID) -> Branch:
        with _translated():
            return await reading(branches.shown)(visitor, conversation)

    async def answer(self, visitor: UUID, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        with _translated():
            return await reading(branches.answer)(visitor, conversation, generation)

    async def owns(self, visitor: UUID, generation: UUID) -> bool:
        with _translated():
            return await reading(Generation.objects.filter(pk=generation, conversation__visitor=visitor).exists)()

    def _accept(self, asked: Asked) -> Accepted:
        try:
            with transaction.atomic():
                return self._store(asked)
        except (IntegrityError, HistoryError) as error:
            if repeated := _accepted(asked.visitor, asked.frame):
                return repeated
            if isinstance(error, HistoryError):
                raise
            raise TurnInProgress from None

    def _store(self, asked: Asked) -> Accepted:
        if isinstance(asked, Question):
            visitor, _ = Visitor.objects.get_or_create(pk=asked.visitor)
            conversation = _conversation(asked, visitor)
            question = conversation.messages.create(
                role=Message.Role.USER, text=asked.text, parent_id=_parent(asked, conversation)
            )
            return self._store_generation(asked, _answer_to(question))
        answer = _answer(asked)
        if isinstance(asked, Redo) and answer.parent is not None:
            return self._store_generation(asked, _answer_to(answer.parent))
        _check_cut_off(answer)
        return self._store_generation(asked, answer)

    def _store_generation(self, asked: Asked, answer: Message) -> Accepted:
        if answer.parent is None:
            raise NotFound
        generation = Generation.objects.create(
            pk=asked.generation,
            visitor_id=asked.visitor,
            conversation_id=answer.conversation_id,
            answer=answer,
            frame=asked.frame,
            owner=self.owner,
        )
        Conversation.objects.filter(pk=answer.conversation_id).update(shown=answer, updated=timezone.now())
        prompt = branches.prompt(answer.conversation_id, answer.parent.pk)
        return Accepted(
            visitor=asked.visitor,
            conversation=answer.conversation_id,
            message=answer.parent.pk,
            answer=answer.pk,
            generation=generation.pk,
            text=answer.text,
            prompt=(*prompt, ChatMessage("assistant", answer.text)) if answer.text else prompt,
        )

    def _live(self, generation: UUID) -> QuerySet[Generation]:
        return Generation.objects.filter(pk=generation, owner=self.owner, state__in=Generation.LIVE)

    def _started(self, generation: UUID) -> None:
        self._live(generation).update(state=Generation.State.RUNNING)

    @transaction.atomic
    def _checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        live = Generation.objects.filter(pk__in=list(texts), owner=self.owner, state__in=Generation.LIVE)
        # The rows stay locked, so that nobody can end one between this look at it and the writing of its text.
        answers = dict(live.order_by("pk").select_for_update().values_list("pk", "answer"))
        live.filter(state=Generation.State.QUEUED).update(state=Generation.State.RUNNING)  # `started` may have failed
        Message.objects.bulk_update([Message(pk=answers[key], text=texts[key]) for key in answers], ["text"])
        return set(texts) - set(answers)

    def _finish(self, generation: UUID, text: str, end: Finished) -> bool:
        with transaction.atomic():
            ended = _end(self._live(generation), end)
            if ended:
                Message.objects.filter(generations=generation).update(text=text)
        return bool(ended)

    def _recover(self) -> int:
        return _end(Generation.objects.filter(state__in=Generation.LIVE).exclude(owner=self.owner), INTERRUPTED)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Trouble of the database, in the words of the contract."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise HistoryUnavailable from error


@functools.cache
def get_history() -> History:
    """The history of this site."""
    return DatabaseHistory()


def title_of(text: str) -> str:
    """The first line that says something, cut to the length of a title."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return line if len(line) <= TITLE_LENGTH else line[: TITLE_LENGTH - 1].rstrip() + "…"


def _accepted(visitor: UUID, frame: str) -> Accepted | None:
    row = Generation.objects.select_related("answer").filter(visitor=visitor, frame=frame).first()
    if row is None or row.answer.parent_id is None:
        return None
    return Accepted(
        visitor=visitor,
        conversation=row.conversation_id,
        message=row.answer.parent_id,
        answer=row.answer_id,
        generation=row.pk,
        new=False,
    )


def _conversation(asked: Question, visitor: Visitor) -> Conversation:
    if asked.conversation is None:
        return visitor.conversations.create(title=title_of(asked.text), updated=timezone.now())
    conversation = visitor.conversations.filter(pk=asked.conversation).first()
    if conversation is None:
        raise NotFound
    return conversation


def _answer_to(question: Message) -> Message:
    return question.conversation.messages.create(role=Message.Role.ASSISTANT, parent=question)


def _answer(asked: Redo | Continue) -> Message:
    answers = Message.objects.select_related("conversation", "parent__conversation").select_for_update(of=("self",))
    answer = answers.filter(pk=asked.answer, conversation__visitor=asked.visitor, role=Message.Role.ASSISTANT).first()
    if answer is None or answer.parent is None:
        raise NotFound
    return answer


def _check_cut_off(answer: Message) -> None:
    state = answer.generations.order_by("-created").values_list("state", flat=True).first()
    if state in Generation.LIVE:
        raise TurnInProgress
    if state == Generation.State.STOP or not answer.text:
        raise NothingToContinue


def _parent(asked: Question, conversation: Conversation) -> UUID | None:
    if not asked.branches:
        return conversation.shown_id
    if asked.parent is None:
        return None
    role = conversation.messages.filter(pk=asked.parent).values_list("role", flat=True).first()
    if role is None:
        raise NotFound
    if role != Message.Role.ASSISTANT:
        raise BadParent
    return asked.parent


def _end(generations: QuerySet[Generation], end: Finished) -> int:
    return generations.update(
        state=end.reason,
        code=end.code or "",
        error=end.message or "",
        ended=timezone.now(),
        prompt_tokens=end.usage.prompt_tokens,
        cached_tokens=end.usage.cached_tokens,
        completion_tokens=end.usage.completion_tokens,
        queue_time=end.timings.queue_time,
        ttft=end.timings.ttft,
        decode_time=end.timings.decode_time,
        tokens_per_second=end.timings.tokens_per_second,
    )
