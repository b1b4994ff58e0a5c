"""A history in memory: the part of the contract that turns are run by, over tables that a test takes away.

Every call gives way once before it reads or writes, so that whatever can come between comes between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from chat.errors import HistoryUnavailable, NotFound, NothingToContinue, TurnInProgress
from chat.history.values import INTERRUPTED, Accepted, Asked, Caller, Continue, Question, StoredAnswer, StoredGeneration
from llm.events import Finished
from llm.request import ChatMessage


@dataclass
class Answer:
    """What was asked, and what was answered; `after` is the answer that stands before the question."""

    conversation: UUID
    visitor: UUID
    question: UUID
    asked: str
    after: UUID | None
    id: UUID = field(default_factory=uuid4)
    text: str = ""


@dataclass
class Row:
    """One generation; `text` is what its answer had when it ended."""

    id: UUID
    request_id: str
    process: UUID
    answer: Answer
    state: str = "queued"
    end: Finished | None = None
    text: str = ""


@dataclass
class Tables:
    """What the processes of a site share. While `away`, nothing works; `loses` answers to so many writes are lost."""

    rows: dict[UUID, Row] = field(default_factory=dict)
    answers: dict[UUID, Answer] = field(default_factory=dict)
    head: dict[UUID, UUID] = field(default_factory=dict)
    away: bool = False
    loses: int = 0

    def living(self) -> list[Row]:
        return [row for row in self.rows.values() if row.end is None]

    def end(self, row: Row, end: Finished) -> None:
        row.state, row.end, row.text = end.reason, end, row.answer.text

    async def reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise HistoryUnavailable

    def written(self) -> None:
        """What was written is there; the one who wrote it may not learn that."""
        if self.loses:
            self.loses -= 1
            raise HistoryUnavailable


class MemoryHistory:
    """That of the process `process`."""

    def __init__(self, tables: Tables | None = None, process: UUID | None = None) -> None:
        self.tables = tables or Tables()
        self.process = process or uuid4()

    async def accepted(self, caller: Caller, request_id: str) -> Accepted | None:
        await self.tables.reach()
        return self._earlier(caller, request_id)

    async def accept(self, asked: Asked) -> Accepted:
        await self.tables.reach()
        if earlier := self._earlier(asked.caller, asked.request_id):
            return earlier
        answer = self._answer(asked)
        if any(row.answer.conversation == answer.conversation for row in self.tables.living()):
            raise TurnInProgress
        self.tables.answers[answer.id] = answer
        self.tables.head[answer.conversation] = answer.id
        self.tables.rows[asked.generation] = Row(asked.generation, asked.request_id, self.process, answer)
        self.tables.written()
        prompt = tuple(self._prompt(answer))
        return Accepted(
            visitor=answer.visitor,
            conversation=answer.conversation,
            message=answer.question,
            answer=answer.id,
            generation=asked.generation,
            store=self,
            text=answer.text,
            prompt=(*prompt, ChatMessage("assistant", answer.text)) if answer.text else prompt,
        )

    async def started(self, generation: UUID) -> None:
        await self.tables.reach()
        if row := self._mine(generation):
            row.state = "running"

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        await self.tables.reach()
        gone = set()
        for generation, text in texts.items():
            if row := self._mine(generation):
                row.state, row.answer.text = "running", text
            else:
                gone.add(generation)
        self.tables.written()
        return gone

    async def finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        await self.tables.reach()
        row = self._mine(generation)
        if row is None:
            known = self.tables.rows[generation]
            same = known.process == self.process and known.state == end.reason and known.text == text
            return known.answer.visitor if same else None
        row.answer.text = text
        self.tables.end(row, end)
        self.tables.written()
        return row.answer.visitor

    async def recover(self) -> int:
        await self.tables.reach()
        lost = [row for row in self.tables.living() if row.process != self.process]
        for row in lost:
            self.tables.end(row, INTERRUPTED)
        return len(lost)

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        await self.tables.reach()
        if all(
            (each.conversation, each.visitor) != (conversation, caller.visitor) for each in self.tables.answers.values()
        ):
            raise NotFound
        if generation is None:
            living = [row for row in self.tables.living() if row.answer.conversation == conversation]
            return _stored(living[0]) if living else None
        row = self.tables.rows.get(generation)
        if row is None or row.answer.conversation != conversation:
            raise NotFound
        return _stored(row)

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        await self.tables.reach()
        row = self.tables.rows.get(generation)
        return row is not None and row.answer.visitor == caller.visitor

    def _earlier(self, caller: Caller, request_id: str) -> Accepted | None:
        for row in self.tables.rows.values():
            if (row.request_id, row.answer.visitor) == (request_id, caller.visitor):
                return Accepted(
                    visitor=caller.visitor,
                    conversation=row.answer.conversation,
                    message=row.answer.question,
                    answer=row.answer.id,
                    generation=row.id,
                )
        return None

    def _answer(self, asked: Asked) -> Answer:
        """The one it begins, or goes on with."""
        visitor = asked.caller.visitor
        if isinstance(asked, Question):
            conversation = asked.conversation or uuid4()
            after = self.tables.head.get(conversation)
            if asked.conversation is not None and (after is None or self.tables.answers[after].visitor != visitor):
                raise NotFound
            return Answer(conversation, visitor, uuid4(), asked.text, after)
        answer = self.tables.answers.get(asked.answer)
        if answer is None or answer.visitor != visitor:
            raise NotFound
        if not isinstance(asked, Continue):
            return Answer(answer.conversation, visitor, answer.question, answer.asked, answer.after)
        last = [row for row in self.tables.rows.values() if row.answer is answer][-1]
        if last.end is None:
            raise TurnInProgress
        if last.state == "stop" or not answer.text:
            raise NothingToContinue
        return answer

    def _prompt(self, answer: Answer) -> Iterator[ChatMessage]:
        if answer.after is not None:
            before = self.tables.answers[answer.after]
            if before.text:
                yield from (*self._prompt(before), ChatMessage("assistant", before.text))
            else:  # nobody answered that
                yield from [*self._prompt(before)][:-1]
        yield ChatMessage("user", answer.asked)

    def _mine(self, generation: UUID) -> Row | None:
        row = self.tables.rows[generation]
        return row if row.end is None and row.process == self.process else None


def _stored(row: Row) -> StoredAnswer:
    end = row.end
    run = StoredGeneration(id=row.id, state=row.state)
    if end is not None:
        run = StoredGeneration(
            id=row.id, state=row.state, usage=end.usage, timings=end.timings, code=end.code, message=end.message
        )
    return StoredAnswer(generation=run, text=row.answer.text, process=row.process)
