"""What a history hands out and takes in: plain values, without a database behind them.

`Stored*` values are also what the HTTP endpoints return: their field names are the keys of that JSON.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal, cast
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llm.events import Finished, FinishReason, Timings, Usage
from llm.request import ChatMessage
from llm.sampling import SamplingParams


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as their session says: the visitor, and the key under which the session's temporary chats are kept."""

    visitor: UUID
    temporary: str = ""


def check_text(*texts: str) -> None:
    """Raises ValueError for what PostgreSQL cannot store."""
    if any("\0" in text for text in texts):
        raise ValueError("NUL is not text.")


class Settings(SamplingParams, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the answers of a conversation are made: SamplingParams, and what the model is told before all else."""

    system: Annotated[str, Meta(max_length=8_000)] = ""

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(**{name: getattr(self, name) for name in SamplingParams.__struct_fields__})

    def __post_init__(self) -> None:
        check_text(self.system, *self.stop)


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise with a conversation. `shown`: the branch through this message, to its latest end."""

    title: Annotated[str, Meta(min_length=1, max_length=60, pattern=r"\S")] | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    shown: UUID | UnsetType = UNSET
    settings: Settings | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.title is not UNSET:
            check_text(self.title)


class Rating(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a visitor thinks of an answer."""

    value: Literal[1, -1]
    comment: Annotated[str, Meta(max_length=2_000)] = ""

    def __post_init__(self) -> None:
        check_text(self.comment)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A message to accept. Without a conversation it starts one; `parent` is looked at only if `branches` is set.

    `temporary`: kept in the session alone, or not; None: as the conversation is, or as this site does it. `settings`
    are those of a conversation that begins with it.
    """

    caller: Caller
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    text: str
    conversation: UUID | None = None
    branches: bool = False
    parent: UUID | None = None
    temporary: bool | None = None
    settings: Settings = Settings()


class Redo(msgspec.Struct, frozen=True, kw_only=True):
    """A further answer to accept beside `answer`."""

    caller: Caller
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    answer: UUID


class Continue(msgspec.Struct, frozen=True, kw_only=True):
    """Further text to accept at the end of `answer`, which was cut off."""

    caller: Caller
    frame: str
    generation: UUID = msgspec.field(default_factory=uuid4)
    answer: UUID


Asked = Question | Redo | Continue


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of an accepted message, and the branch up to it as the model is to see it.

    `text` is what the answer holds already; the prompt then ends with it. `settings` are the conversation's. `new` is
    False if the frame had been accepted before; then there is nothing to run, no text and no prompt.
    """

    visitor: UUID
    conversation: UUID
    message: UUID
    answer: UUID
    generation: UUID
    new: bool = True
    text: str = ""
    prompt: tuple[ChatMessage, ...] = ()
    settings: Settings = Settings()


class StoredGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """State: queued, running, or the reason it ended."""

    id: UUID
    state: str
    usage: Usage = Usage()
    timings: Timings = Timings()
    code: str | None = None
    message: str | None = None
    model: str = ""

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
            model=self.model,
        )


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the shown branch, and the versions of it in their order, itself among them.

    Answers carry the generation that wrote them last, and what their visitor thinks of them.
    """

    id: UUID
    parent: UUID | None
    role: str
    text: str
    created: datetime
    siblings: list[UUID]
    generation: StoredGeneration | None = None
    feedback: Rating | None = None


class StoredConversation(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list; `live` is the generation that runs in it, and a `temporary` one is in the session alone."""

    id: UUID
    title: str
    updated: datetime
    live: UUID | None = None
    temporary: bool = False
    pinned: bool = False


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is stored, for those who are not where its turn runs; `owner` is the process that ran it last."""

    generation: StoredGeneration
    text: str
    owner: UUID


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations, the pinned ones first, then latest first; `next` asks for those after them, None at the end."""

    conversations: list[StoredConversation]
    next: str | None = None


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with the last messages of its shown branch, or with those before a certain one, oldest first.

    `earlier` asks for those before them, None at the beginning.
    """

    conversation: StoredConversation
    messages: list[StoredMessage]
    earlier: UUID | None = None
    settings: Settings = Settings()


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


class NotOffered(HistoryError):
    """This site does not keep chats in the way that was asked for, or not this chat."""

    code = "not_offered"


class HistoryUnavailable(HistoryError):
    """The store does not answer; trying again later can help."""

    code = "unavailable"
