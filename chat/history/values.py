"""The values that a history takes in and hands out. They know no database and no session.

`Stored*`, `Page` and `Branch` are also what the HTTP endpoints return: their field names are the keys of that JSON.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol, cast
from uuid import UUID, uuid4

import msgspec
from msgspec import UNSET, Meta, UnsetType

from llm.events import Finished, FinishReason, Timings, Usage
from llm.request import ChatMessage
from llm.sampling import SamplingParams

INTERRUPTED = Finished(
    reason="interrupted", code="interrupted", message="The server stopped while this answer was being written."
)
"""The end of a generation whose process died or was stopped."""


class Caller(msgspec.Struct, frozen=True):
    """Identifies who asks: the visitor, and the key of the session that keeps their temporary chats ("": none)."""

    visitor: UUID
    temporary: str = ""


def check_text(*texts: str) -> None:
    """Raise ValueError for a text that PostgreSQL cannot store."""
    if any("\0" in text for text in texts):
        raise ValueError("NUL is not text.")


class ConversationSettings(SamplingParams, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How the answers of a conversation are made: sampling parameters and a system prompt."""

    system: Annotated[str, Meta(max_length=8_000)] = ""

    @property
    def params(self) -> SamplingParams:
        return SamplingParams(**{name: getattr(self, name) for name in SamplingParams.__struct_fields__})

    def __post_init__(self) -> None:
        check_text(self.system, *self.stop)


def as_json(settings: ConversationSettings) -> dict[str, Any]:
    """Return the settings as JSON keeps them: the keys of an object are texts there, numbers among them."""
    kept: dict[str, Any] = msgspec.to_builtins(settings, str_keys=True)
    return kept


def from_json(found: object) -> ConversationSettings:
    """Return the settings that were kept as JSON; what this version does not know or allow any more is not set."""
    if _allowed(found):
        return _settings(found)
    fields = found.items() if isinstance(found, dict) else ()
    return _settings({name: value for name, value in fields if _allowed({name: value})})


def _allowed(found: object) -> bool:
    try:
        _settings(found)
    except msgspec.ValidationError:
        return False
    return True


def _settings(found: object) -> ConversationSettings:
    return msgspec.convert(found, ConversationSettings, str_keys=True)


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a conversation that change. `shown`: show the branch through this message, to its latest end."""

    title: Annotated[str, Meta(min_length=1, max_length=60, pattern=r"\S")] | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    shown: UUID | UnsetType = UNSET
    settings: ConversationSettings | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.title is not UNSET:
            check_text(self.title)


class Rating(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A visitor's rating of an answer."""

    value: Literal[1, -1]
    comment: Annotated[str, Meta(max_length=2_000)] = ""

    def __post_init__(self) -> None:
        check_text(self.comment)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a visitor asks for. A visitor's `request_id` is carried out once, however often it comes."""

    caller: Caller
    request_id: str
    generation: UUID = msgspec.field(default_factory=uuid4)


class Question(Request, frozen=True, kw_only=True):
    """A message to accept. Without a conversation it starts one; `parent` is looked at only if `branches` is set.

    `temporary` says whether a new conversation is kept in the session alone; None: as the site does by default.
    `settings` are those of a conversation that begins with it.
    """

    text: str
    conversation: UUID | None = None
    branches: bool = False
    parent: UUID | None = None
    temporary: bool | None = None
    settings: ConversationSettings = ConversationSettings()


class Redo(Request, frozen=True, kw_only=True):
    """A further answer to accept beside `answer`."""

    answer: UUID


class Continue(Request, frozen=True, kw_only=True):
    """Further text to accept at the end of `answer`, which was cut off."""

    answer: UUID


Asked = Question | Redo | Continue


class AnswerStore(Hashable, Protocol):
    """Keeps the answers of turns under way, of one process and in one place.

    Turns whose stores are equal are checkpointed together. Everything raises HistoryUnavailable when trying again can
    help; what was to be written may be there all the same.
    """

    async def started(self, generation: UUID) -> None:
        """Record that it left the queue."""

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        """Store the text so far of generations, all or nothing; return those that this process no longer runs."""

    async def finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        """Store the end and return the visitor whose it is by now: who asked may have signed in since.

        Return None, and write nothing, if it has another end or belongs to another process.
        """


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The ids of an accepted request and, if it is new, what its turn is run with.

    `store` keeps the answer; None if the request had been accepted before: then there is nothing to run. `prompt` is
    the branch as the model is to see it, `text` what the answer holds already; the prompt then ends with it.
    """

    visitor: UUID
    conversation: UUID
    message: UUID
    answer: UUID
    generation: UUID
    store: AnswerStore | None = None
    text: str = ""
    prompt: tuple[ChatMessage, ...] = ()
    settings: ConversationSettings = ConversationSettings()

    @property
    def new(self) -> bool:
        """Whether the request was accepted just now."""
        return self.store is not None


class StoredGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """State and figures of a generation. `state` is queued, running, or the reason it ended."""

    id: UUID
    state: str
    usage: Usage = Usage()
    timings: Timings = Timings()
    code: str | None = None
    message: str | None = None
    model: str = ""

    @property
    def finished(self) -> Finished | None:
        """Its end; None while it is queued or running."""
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
    """One message of the shown branch. `siblings` are its versions in their order, itself among them.

    An answer carries the generation that wrote it last, and its visitor's rating.
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
    """One line of the list. `live` is the generation under way in it; a `temporary` one is in the session alone."""

    id: UUID
    title: str
    updated: datetime
    live: UUID | None = None
    temporary: bool = False
    pinned: bool = False


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it is stored, read by processes that do not run its turn. `process` is the one that ran it last."""

    generation: StoredGeneration
    text: str
    process: UUID


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Conversations, pinned ones first, then the latest first. `next` asks for the next page; None on the last."""

    conversations: list[StoredConversation]
    next: str | None = None


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation with messages of its shown branch, oldest first: the last ones, or those before a certain one.

    `earlier` asks for the messages before them; None at the beginning.
    """

    conversation: StoredConversation
    messages: list[StoredMessage]
    earlier: UUID | None = None
    settings: ConversationSettings = ConversationSettings()
