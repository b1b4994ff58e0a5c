"""Stores what an accepted request begins with in a session, and the row of its generation.

That row is like any other, but names no conversation and no answer: the figures stay when the text is gone.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec
from django.utils import timezone

from chat.errors import NothingToContinue, TurnInProgress
from chat.history import tree
from chat.history.prompt import prompt
from chat.history.temporary.answers import SessionAnswers, bound
from chat.history.temporary.chats import TemporaryChat, TemporaryChats, TemporaryMessage
from chat.history.temporary.reading import live
from chat.history.temporary.sessions import load, opened
from chat.history.titles import title_of
from chat.history.values import Accepted, Asked, Caller, Continue, Question, Redo
from chat.models import Generation


def accepted(caller: Caller, row: Generation) -> Accepted:
    """Return what the generation's request was answered with. Raises NotFound if its answer is gone."""
    chat, answer = load(caller).written_by(row.pk)
    return _accepted(caller, row.pk, chat, answer)


def accept(asked: Asked, process: UUID) -> Accepted:
    """Store what is new of a request, for `process` to run. Raises HistoryError, or IntegrityError."""
    now = timezone.now()
    with opened(asked.caller.temporary, begin=isinstance(asked, Question)) as chats:
        chat = _chat(asked, chats, now)
        if live(chat):
            raise TurnInProgress
        answer = _ask(asked, chat, now) if isinstance(asked, Question) else _again(asked, chat, now)
        answer.generations.append(asked.generation)
        chat.head, chat.updated = answer.id, now
        Generation.objects.create(
            pk=asked.generation, visitor_id=asked.caller.visitor, request_id=asked.request_id, process=process
        )
        bound(chats, answer)
        return msgspec.structs.replace(
            _accepted(asked.caller, asked.generation, chat, answer),
            store=SessionAnswers(process, asked.caller.temporary),
            text=answer.text,
            prompt=prompt(chat.settings, ((each.role, each.text) for each in chat.path(answer.parent)), answer.text),
            settings=chat.settings,
        )


def _accepted(caller: Caller, generation: UUID, chat: TemporaryChat, answer: TemporaryMessage) -> Accepted:
    question = chat.message(answer.parent).id
    return Accepted(
        visitor=caller.visitor, conversation=chat.id, message=question, answer=answer.id, generation=generation
    )


def _chat(asked: Asked, chats: TemporaryChats, now: datetime) -> TemporaryChat:
    """Return the chat it is about, made if it is new. Raises NotFound."""
    if not isinstance(asked, Question):
        return chats.find(lambda message: message.id == asked.answer and message.role == "assistant")[0]
    if asked.conversation is not None:
        return chats.chat(asked.conversation)
    chats.chats.append(TemporaryChat(title=title_of(asked.text), updated=now, settings=asked.settings))
    return chats.chats[-1]


def _ask(asked: Question, chat: TemporaryChat, now: datetime) -> TemporaryMessage:
    """Add the question and an empty answer; return the answer."""
    places = {message.id: (message.role, message.parent) for message in chat.messages}
    parent = tree.parent_of(asked, chat.head, places.get)
    question = chat.add(TemporaryMessage(parent=parent, role="user", text=asked.text, created=now))
    return chat.add(TemporaryMessage(parent=question.id, role="assistant", created=now))


def _again(asked: Redo | Continue, chat: TemporaryChat, now: datetime) -> TemporaryMessage:
    """Return the answer to write: a further one beside it, or itself to go on with."""
    answer = chat.message(asked.answer)
    if isinstance(asked, Redo):
        return chat.add(TemporaryMessage(parent=answer.parent, role="assistant", created=now))
    state = Generation.objects.filter(pk__in=answer.generations[-1:]).values_list("state", flat=True).first()
    if state == Generation.State.STOP or not answer.text:
        raise NothingToContinue
    return answer
