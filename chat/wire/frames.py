"""Defines every frame of the socket `/ws/chat/`. The only place that names the keys of its JSON.

Text frames of JSON, at most 64 KiB of UTF-8 each way, told apart by `type`. A client chooses an `id` for each frame,
1 to 64 characters, and gets exactly one reply that carries it: `message.accepted`, `ok`, `pong` or `error`. A
`message.*` frame whose `id` this visitor has used before is not carried out again, but answered with what it led to.
Unknown fields are refused, not ignored: what they ask for would silently not happen.

After accepting a socket the server sends `hello` and `status`. Whoever sends a message watches its answer;
`conversation.open` watches one that is running: what was missed comes as `generation.snapshot`, or, with the
`next_seq` of what is already there, as the missing deltas. `seq` counts from 0, +1 each, the same for every watcher,
so a gap shows. Every watched generation ends with exactly one `generation.finished`.

A temporary conversation is in the visitor's session and in no table: it is gone at sign-out, or 12 hours after its last
message, and other browsers of the same account do not see it. `hello` says in `temporary` what the site offers: `off`
(none), `optional` (with `temporary: true` in the `message.send` that begins it), `default` (unless that says
`temporary: false`) or `only`. What is not offered, or does not fit the conversation it names, is `not_offered`. The ids
of such a conversation and its messages are UUIDs of version 8, of all others of version 4. Otherwise it is like any
other; its oldest turns are forgotten when all of a session have more than 256 KiB of text.

A server that is told to stop sends `server.restarting` to all. It answers new messages with the error `restarting`,
and closes each socket with 1012 once no answer it watches is under way; a client connects again after `retry_after`.

The server closes with 4401 (no session: load the page again), 4403 (origin not allowed), 4429 (too many sockets of
one visitor, or too many frames from this one: 100 at once, then 20 a second), 1012 (it restarts). It reads no further
frames of a socket while 16 of them are not answered.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from chat.history.values import ConversationSettings
from llm.events import FinishReason, State, Timings, Usage
from llm.sampling import SamplingParams

VERSION = 1
MAX_FRAME_BYTES = 64 * 1024
NO_SESSION = 4401
TOO_MANY = 4429
SERVICE_RESTART = 1012


# What the client sends


class ClientFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", forbid_unknown_fields=True):
    """Base of what the client sends. Its `id` comes back in the reply."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]


class MessageSend(ClientFrame, frozen=True, kw_only=True, tag="message.send"):
    """Ask a question.

    No conversation: a new one. No parent: at the end of the shown branch, or in the place of a question there that has
    lost its answer; null: a new root; an id: below that answer.
    `temporary`: whether a new conversation is to be one; absent or null: as `hello` says. It cannot change later.
    `settings` are those of a new conversation; over HTTP they change at any time. `params` are of this answer alone.
    """

    text: str
    conversation: UUID | None = None
    parent: UUID | None | UnsetType = UNSET
    temporary: bool | None = None
    settings: ConversationSettings = ConversationSettings()
    params: SamplingParams = SamplingParams()


class MessageRegenerate(ClientFrame, frozen=True, kw_only=True, tag="message.regenerate"):
    """Ask for a further answer beside the answer `message`, with the settings its conversation has now."""

    message: UUID
    params: SamplingParams = SamplingParams()


class MessageContinue(ClientFrame, frozen=True, kw_only=True, tag="message.continue"):
    """Ask for more of the answer `message`, which was cut off, with the settings its conversation has now.

    A snapshot with the text that it has comes first.
    """

    message: UUID
    params: SamplingParams = SamplingParams()


class GenerationStop(ClientFrame, frozen=True, kw_only=True, tag="generation.stop"):
    """End a generation, queued or running; the text so far stays."""

    generation: UUID


class ConversationOpen(ClientFrame, frozen=True, kw_only=True, tag="conversation.open"):
    """Watch a generation of a conversation, or the one under way; `next_seq` is the first delta that is missing."""

    conversation: UUID
    generation: UUID | None = None
    next_seq: Annotated[int, Meta(ge=0)] | None = None


class Ping(ClientFrame, frozen=True, kw_only=True, tag="ping"):
    """Ask for a sign of life."""


AnyClientFrame = MessageSend | MessageRegenerate | MessageContinue | GenerationStop | ConversationOpen | Ping


# What the server sends


class ServerFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of what the server sends. Fields that may be missing are UNSET; a null has a meaning of its own."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits that a client should respect before it sends. `system_prompt` is the setting CHAT_SYSTEM_PROMPT."""

    frame_bytes: int
    message_chars: int
    watches: int
    max_new_tokens: int
    system_prompt: str


class Hello(ServerFrame, frozen=True, kw_only=True, tag="hello"):
    """The first frame of the server. `model` is empty until it is known; `temporary` is the setting CHAT_TEMPORARY."""

    protocol: int = VERSION
    model: str
    limits: Limits
    temporary: str


class StatusChanged(ServerFrame, frozen=True, kw_only=True, tag="status"):
    """The state of the model, after `hello` and on every change. `progress` runs from 0 to 1.

    `defaults` are the parameters that hold where neither a message nor its conversation says otherwise, of the model or
    the operator; empty until they are known.
    """

    state: State
    model: str
    defaults: SamplingParams
    progress: float | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Ok(ServerFrame, frozen=True, kw_only=True, tag="ok"):
    """The frame was carried out, or that has begun."""

    id: str


class Pong(ServerFrame, frozen=True, kw_only=True, tag="pong"):
    """The reply to `ping`."""

    id: str


class MessageAccepted(ServerFrame, frozen=True, kw_only=True, tag="message.accepted"):
    """The message is stored and will be answered: `message` is the question, `answer` the answer to it.

    `temporary` tells whether the conversation is.
    """

    id: str
    conversation: UUID
    message: UUID
    answer: UUID
    generation: UUID
    temporary: bool


class GenerationQueued(ServerFrame, frozen=True, kw_only=True, tag="generation.queued"):
    """The place of a generation in the queue, 1 is next; `eta` in seconds, null while unknown. Sent on every change."""

    generation: UUID
    position: int
    size: int
    eta: float | None


class GenerationStarted(ServerFrame, frozen=True, kw_only=True, tag="generation.started"):
    """The generation left the queue, after `queue_time` seconds."""

    generation: UUID
    queue_time: float


class GenerationDelta(ServerFrame, frozen=True, kw_only=True, tag="generation.delta"):
    """Further text of an answer."""

    generation: UUID
    seq: int
    text: str


class GenerationSnapshot(ServerFrame, frozen=True, kw_only=True, tag="generation.snapshot"):
    """The text so far, or its first part; the delta `next_seq` comes next. `state`: queued, running, or the reason."""

    generation: UUID
    state: str
    text: str
    next_seq: int


class GenerationFinished(ServerFrame, frozen=True, kw_only=True, tag="generation.finished"):
    """The end of a generation, sent when it is stored. `code` and `message` explain error, timeout and interrupted.

    `model` is what answered, empty if nothing did. `usage.left_out_turns` tells how many of the oldest turns of its
    branch (a question and its answer each) the model was not shown, since all of them did not fit.
    """

    generation: UUID
    reason: FinishReason
    usage: Usage
    timings: Timings
    code: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    model: str = ""


class ConversationChanged(ServerFrame, frozen=True, kw_only=True, tag="conversation.changed"):
    """A conversation changed in any way. Sent to all of the visitor's sockets."""

    conversation: UUID


class ServerRestarting(ServerFrame, frozen=True, kw_only=True, tag="server.restarting"):
    """The server will close this socket soon; connect again after `retry_after` seconds, not all at once."""

    retry_after: float


class Error(ServerFrame, frozen=True, kw_only=True, tag="error"):
    """A frame was not carried out. `code` is a key of `chat.errors.SENTENCES`; `retry_after` in seconds.

    Without an `id` where the frame had none that could be read.
    """

    code: str
    message: str
    id: str | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET
