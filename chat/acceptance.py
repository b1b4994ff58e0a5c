"""The rows an accepted message begins with: the question, the empty answer, the generation that is to write it.

Runs inside a transaction of its caller's. Knows nothing of what becomes of them.
"""

from __future__ import annotations

import unicodedata
from uuid import UUID

import msgspec
from django.utils import timezone

from chat import branches
from chat.models import TITLE_LENGTH, Conversation, Generation, Message, Visitor
from chat.opening import opening
from chat.records import (
    Accepted,
    Asked,
    BadParent,
    Continue,
    NotFound,
    NothingToContinue,
    Question,
    Redo,
    TurnInProgress,
)
from llm.request import ChatMessage

JOINER = "\u200d"


def store(asked: Asked, owner: UUID) -> Accepted:
    """Store what is new of it, for the process `owner` to run. Raises HistoryError, or IntegrityError."""
    if isinstance(asked, Question):
        visitor, _ = Visitor.objects.get_or_create(pk=asked.caller.visitor)
        conversation = _conversation(asked, visitor)
        question = conversation.messages.create(
            role=Message.Role.USER, text=asked.text, parent_id=_parent(asked, conversation)
        )
        return _store_generation(asked, owner, question, _answer_to(question))
    question, answer = _turn(asked)
    if isinstance(asked, Redo):
        answer = _answer_to(question)
    else:
        _check_cut_off(answer)
    return _store_generation(asked, owner, question, answer)


def earlier(visitor: UUID, frame: str) -> Accepted | None:
    """What a frame of this id led to before. Raises NotFound if that is in no table."""
    row = Generation.objects.select_related("answer").filter(visitor=visitor, frame=frame).first()
    if row is None:
        return None
    if row.answer is None or row.answer.parent_id is None:
        raise NotFound
    return Accepted(
        visitor=visitor,
        conversation=row.answer.conversation_id,
        message=row.answer.parent_id,
        answer=row.answer.pk,
        generation=row.pk,
        new=False,
    )


def title_of(text: str) -> str:
    """The first line that says something, cut to the length of a title."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    end = TITLE_LENGTH - 1
    while end and _belongs(line[end - 1], line[end]):
        end -= 1
    return line[: end or TITLE_LENGTH - 1].rstrip() + "…"


def _belongs(before: str, character: str) -> bool:
    """A mark, a joiner or an emoji's colour is shown as one with what is before it, and so is what a joiner joins."""
    joined = unicodedata.category(character) in ("Mn", "Mc", "Me", "Sk") or character == JOINER
    return joined or before == JOINER


def _store_generation(asked: Asked, owner: UUID, question: Message, answer: Message) -> Accepted:
    """Its settings are those the conversation has now, a further answer's and a continuation's too.

    Who changes them and asks again wants the change; those an answer was begun with are kept nowhere.
    """
    generation = Generation.objects.create(
        pk=asked.generation,
        visitor_id=asked.caller.visitor,
        conversation_id=answer.conversation_id,
        answer=answer,
        frame=asked.frame,
        owner=owner,
    )
    there = Conversation.objects.filter(pk=answer.conversation_id, deleted=None)
    if not there.update(shown=answer, updated=timezone.now()):
        raise NotFound  # it was deleted since it was looked for, by who did not see this generation
    settings = branches.settings_of(answer.conversation)
    prompt = (*opening(settings), *branches.prompt(answer.conversation_id, question.pk))
    return Accepted(
        visitor=asked.caller.visitor,
        conversation=answer.conversation_id,
        message=question.pk,
        answer=answer.pk,
        generation=generation.pk,
        text=answer.text,
        prompt=(*prompt, ChatMessage("assistant", answer.text)) if answer.text else prompt,
        settings=settings,
    )


def _conversation(asked: Question, visitor: Visitor) -> Conversation:
    if asked.conversation is None:
        settings = msgspec.to_builtins(asked.settings)
        return visitor.conversations.create(title=title_of(asked.text), updated=timezone.now(), settings=settings)
    conversation = visitor.conversations.filter(pk=asked.conversation, deleted=None).first()
    if conversation is None:
        raise NotFound
    return conversation


def _answer_to(question: Message) -> Message:
    return question.conversation.messages.create(role=Message.Role.ASSISTANT, parent=question)


def _turn(asked: Redo | Continue) -> tuple[Message, Message]:
    """The answer it is about, and its question before it."""
    answers = Message.objects.select_related("conversation", "parent__conversation").select_for_update(of=("self",))
    theirs = answers.filter(conversation__in=branches.theirs(asked.caller.visitor), role=Message.Role.ASSISTANT)
    answer = theirs.filter(pk=asked.answer).first()
    if answer is None or answer.parent is None:
        raise NotFound
    return answer.parent, answer


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
