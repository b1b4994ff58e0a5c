"""The contract of a history: what was said, kept, whatever keeps it.

Knows no sockets, no frames, no model and no database. Every row of a turn is written behind this: its first ones all or
nothing, its last ones once, and only by the process that owns the turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol
from uuid import UUID

from chat.records import Accepted, Asked, Branch, Caller, Changes, Page, Rating, StoredAnswer
from llm.events import Finished

INTERRUPTED = Finished(
    reason="interrupted", code="interrupted", message="The server stopped while this answer was being written."
)


class TurnHistory(Protocol):
    """What turns are run by. Who asks comes with every question: what is not theirs is not found.

    Everything raises HistoryUnavailable where trying again can help; what was to be written may be there all the same.
    """

    async def accepted(self, caller: Caller, frame: str) -> Accepted | None:
        """What an earlier frame of this id led to, None if there was none. Raises NotFound if that is gone."""

    async def accept(self, asked: Asked) -> Accepted:
        """Store question, empty answer and generation (of these what is new), all or nothing. Raises HistoryError."""

    async def started(self, generation: UUID) -> None:
        """It left the queue."""

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        """Store the text so far of running generations, all or nothing; those that live here no longer come back."""

    async def finish(self, generation: UUID, text: str, end: Finished) -> bool:
        """Store the end. False if it has another one, or belongs to another process: then nothing was written."""

    async def recover(self) -> int:
        """End the live generations of processes that are gone; how many there were."""

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        """The answer of a generation, or of the one that lives in the conversation, if one does. Raises NotFound."""

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        """The generation is in a conversation of this caller."""


class History(TurnHistory, Protocol):
    """Where turns are kept, and what else one does with what was said."""

    async def conversations(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        """A page of the caller's conversations, of those whose title or texts have `query`. Raises NotFound."""

    async def holds(self, caller: Caller, conversation: UUID) -> bool:
        """There is this conversation, and it is the caller's."""

    async def branch(
        self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False
    ) -> Branch:
        """The end of the shown branch, or what comes before one of its messages, or all of it. Raises NotFound."""

    async def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        """Out of sight at once, and gone for good soon after; a temporary one at once. Raises NotFound.

        What comes back is the generation that lives in it, to be stopped; no other begins there any more.
        """

    async def restore(self, caller: Caller, conversation: UUID) -> None:
        """In sight again, as if it had not been deleted. Raises NotFound if it is gone."""

    async def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        """Title, pin, settings, which branch is shown. Raises HistoryError."""

    async def delete_message(self, caller: Caller, message: UUID) -> UUID:
        """Delete it and all that follows it; the conversation. Raises NotFound, TurnInProgress."""

    async def rate(self, caller: Caller, answer: UUID, rating: Rating | None) -> UUID:
        """Keep what the caller thinks of an answer, None: nothing any more; the conversation. Raises NotFound."""
