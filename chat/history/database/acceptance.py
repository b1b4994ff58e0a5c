"""Stores the rows an accepted request begins with: the question, the empty answer, the generation that writes it.

Runs inside a transaction of its caller. Knows nothing of what becomes of them.
"""

from __future__ import annotations

from uuid import UUID

from django.utils import timezone

from chat.errors import NotFound, NothingToContinue, TurnInProgress
from chat.history import tree
from chat.history.database import reading
from chat.history.database.answers import DatabaseAnswers
from chat.history.prompt import prompt
from chat.history.titles import title_of
from chat.history.values import Accepted, Asked, Caller, Continue, Question, Redo, as_json, from_json
from chat.models import Conversation, Generation, Message


def accepted(caller: Caller, row: Generation) -> Accepted:
    """Return what the generation's request was answered with. Raises NotFound if its answer is gone."""
    if row.answer is None or row.answer.parent_id is None:
        raise NotFound
    return Accepted(
        visitor=caller.visitor,
        conversation=row.answer.conversation_id,
        message=row.answer.parent_id,
        answer=row.answer.pk,
        generation=row.pk,
    )


def accept(asked: Asked, process: UUID) -> Accepted:
    """Store what is new of a request, for `process` to run. Raises HistoryError, or IntegrityError."""
    if isinstance(asked, Question):
        question = _ask(asked)
        return _generate(asked, process, question, _answer_to(question))
    question, answer = _turn(asked)
    if isinstance(asked, Redo):
        answer = _answer_to(question)
    else:
        _check_cut_off(answer)
    return _generate(asked, process, question, answer)


def _generate(asked: Asked, process: UUID, question: Message, answer: Message) -> Accepted:
    """Store the generation. A further answer's and a continuation's settings are those the conversation has now.

    Who changes them and asks again wants the change; those an answer was begun with are kept nowhere.
    """
    generation = Generation.objects.create(
        pk=asked.generation,
        visitor_id=asked.caller.visitor,
        conversation_id=answer.conversation_id,
        answer=answer,
        request_id=asked.request_id,
        process=process,
    )
    there = Conversation.objects.filter(pk=answer.conversation_id, deleted=None)
    if not there.update(head=answer, updated=timezone.now()):
        raise NotFound  # it was deleted since it was looked for, by who did not see this generation
    settings = from_json(answer.conversation.settings)
    return Accepted(
        visitor=asked.caller.visitor,
        conversation=answer.conversation_id,
        message=question.pk,
        answer=answer.pk,
        generation=generation.pk,
        store=DatabaseAnswers(process),
        text=answer.text,
        prompt=prompt(settings, reading.said(answer.conversation_id, question.pk), answer.text),
        settings=settings,
    )


def _ask(asked: Question) -> Message:
    conversation = _conversation(asked)
    places = conversation.messages.values_list("role", "parent")
    parent = tree.parent_of(asked, conversation.head_id, lambda message: places.filter(pk=message).first())
    return conversation.messages.create(role=Message.Role.USER, text=asked.text, parent_id=parent)


def _conversation(asked: Question) -> Conversation:
    if asked.conversation is None:
        title, settings = title_of(asked.text), as_json(asked.settings)
        return Conversation.objects.create(
            visitor_id=asked.caller.visitor, title=title, updated=timezone.now(), settings=settings
        )
    return _locked(asked.caller, pk=asked.conversation)


def _locked(caller: Caller, **which: UUID) -> Conversation:
    """Lock one of the caller's conversations, so that no message of it is deleted meanwhile. Raises NotFound.

    It goes before all rows of it, here as in `edits`: who waits for it holds nothing that a deletion waits for.
    """
    conversation = reading.theirs(caller).select_for_update(of=("self",)).filter(**which).first()
    if conversation is None:
        raise NotFound
    return conversation


def _answer_to(question: Message) -> Message:
    return question.conversation.messages.create(role=Message.Role.ASSISTANT, parent=question)


def _turn(asked: Redo | Continue) -> tuple[Message, Message]:
    """Return the question and the answer it is about, the answer locked. Raises NotFound."""
    conversation = _locked(asked.caller, messages=asked.answer)
    answers = Message.objects.select_related("conversation", "parent__conversation").select_for_update(of=("self",))
    answer = answers.filter(conversation=conversation, pk=asked.answer, role=Message.Role.ASSISTANT).first()
    if answer is None or answer.parent is None:
        raise NotFound
    return answer.parent, answer


def _check_cut_off(answer: Message) -> None:
    state = answer.generations.order_by("-created").values_list("state", flat=True).first()
    if state in Generation.LIVE:
        raise TurnInProgress
    if state == Generation.State.STOP or not answer.text:
        raise NothingToContinue
