"""What a history hands out and takes in: plain values, without a database behind them.

`Stored*` values are also what the HTTP endpoints return: their field names are the keys of that JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, cast
from uuid import UUID, uuid4

import msgspec

from llm.events import Finished, FinishReason, Timings, Usage
from llm.request import ChatMessage


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A message to accept. Without a conversation it starts one; `parent` is looked at only if `branches` is set."""

    visitor: UUID
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    text: str
    conversation: UUID | None = None
    branches: bool = False
    parent: UUID | None = None


class Redo(msgspec.Struct, frozen=True, kw_only=True):
    """A further answer to accept beside `answer`."""

    visitor: UUID
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    answer: UUID


class Continue(msgspec.Struct, frozen=True, kw_only=True):
    """Further text to accept at the end of `answer`, which was cut off."""

    visitor: UUID
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    answer: UUID


Asked = Question | Redo | Continue


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of an accepted message, and the branch up to it as the model is to see it.

    `text` is what the answer holds already; the prompt then ends with it. `new` is False if the frame had been accepted
    before; then there is nothing to run, no text and no prompt.
    """

    visitor: UUID
    conversation: UUID
    message: UUID
    answer: UUID
    generation: UUID
    new: bool = True
    text: str = ""
    prompt: tuple[ChatMessage, ...] = ()


class StoredGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """State: queued, running, or the reason it ended."""

    id: UUID
    state: str
    usage: Usage = Usage()
    timings: Timings = Timings()
    code: str | None = None
    message: str | None = None

    @property
    def finished(self) -> Finished | None:
        """Its end, None while it lives."""
        if self.state in ("queued", "running"):
            return None
        return Finished(
            reason=cast(FinishReason, self.state),
            usage=self.usage,
            timings=self.timings,
            code=self.code,
            message=self.message,
        )


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the shown branch; answers carry the generation that wrote them last."""

    id: UUID
    parent: UUID | None
    role: str
    text: str
    created: datetime
    generation: StoredGeneration | None = None


class StoredConversation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list; `live` is the generation that runs in it."""

    id: UUID
    title: str
    updated: datetime
    live: UUID | None = None


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is in the tables, for those who come after its turn."""

    generation: StoredGeneration
    text: str


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations, latest first; `next` asks for those after them, None at the end."""

    conversations: list[StoredConversation]
    next: str | None = None


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with the messages of its shown branch, oldest first."""

    conversation: StoredConversation
    messages: list[StoredMessage]


class HistoryError(Exception):
    """Something cannot be read or stored. A `code` is stable and travels over the wire."""

    code: ClassVar[str] = "error"


class NotFound(HistoryError):
    """There is no such thing, or it is another visitor's: the answer is the same for both."""

    code = "not_found"


class TurnInProgress(HistoryError):
    """The conversation has an answer that is still being written."""

    code = "turn_in_progress"


class BadParent(HistoryError):
    """A question can only follow an answer."""

    code = "bad_parent"


class NothingToContinue(HistoryError):
    """The answer is complete, or there is no text of it."""

    code = "nothing_to_continue"


class HistoryUnavailable(HistoryError):
    """The store does not answer; trying again later can help."""

    code = "unavailable"
