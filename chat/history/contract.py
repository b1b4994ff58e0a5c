"""The contracts of the history: what turns need of it, and what a store of conversations offers.

Every row of a turn is written behind them: the first ones all or nothing, the last ones once, and only by the process
that runs the turn. They know no sockets, no frames and no language model.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from chat.history.values import Accepted, Asked, Branch, Caller, Changes, Page, StoredAnswer
from chat.models import Generation


class TurnHistory(Protocol):
    """The history as turns need it. A conversation that is not the caller's is not found.

    Everything raises HistoryUnavailable when trying again can help.
    """

    async def accepted(self, caller: Caller, request_id: str) -> Accepted | None:
        """Return what an earlier request of this id led to, None if there was none. Raises NotFound if it is gone."""

    async def accept(self, asked: Asked) -> Accepted:
        """Store question, empty answer and generation (of these what is new), all or nothing. Raises HistoryError."""

    async def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        """Return the answer of a generation, or of the one under way, if there is one. Raises NotFound."""

    async def owns(self, caller: Caller, generation: UUID) -> bool:
        """Tell whether the generation is in a conversation of this caller."""


class Store(Protocol):
    """A place where conversations are kept: the packages `chat.history.database` and `chat.history.temporary`.

    Its functions run in threads and may use the database. `accept` runs inside a transaction of its caller.
    """

    def accepted(self, caller: Caller, row: Generation) -> Accepted:
        """Return what the generation's request was answered with. Raises NotFound if its answer is gone."""

    def accept(self, asked: Asked, process: UUID) -> Accepted:
        """Store what is new of a request of a visitor who has a row. Raises HistoryError, or IntegrityError."""

    def page(self, caller: Caller, after: str | None = None, query: str = "") -> Page:
        """Return a page of the caller's conversations, of those whose title or texts have `query`. Raises NotFound."""

    def holds(self, caller: Caller, conversation: UUID) -> bool:
        """Tell whether there is this conversation, and it is the caller's."""

    def branch(self, caller: Caller, conversation: UUID, before: UUID | None = None, *, whole: bool = False) -> Branch:
        """Return the end of the shown branch, or what is before one of its messages, or all. Raises NotFound."""

    def answer(self, caller: Caller, conversation: UUID, generation: UUID | None) -> StoredAnswer | None:
        """See TurnHistory."""

    def owns(self, caller: Caller, row: Generation) -> bool:
        """Tell whether the generation is in a conversation of this caller."""

    def delete(self, caller: Caller, conversation: UUID) -> UUID | None:
        """Take it out of sight; it is gone for good soon after, a temporary one at once. Raises NotFound.

        Returns the generation under way in it, to be stopped; no other begins there any more.
        """

    def change(self, caller: Caller, conversation: UUID, changes: Changes) -> None:
        """Change title, pin, settings, or which branch is shown. Raises HistoryError."""
