"""The socket of the chat page: accept, parse, authorise, subscribe, forward.

Channels awaits one handler at a time, so nothing that can wait runs inside one: each frame is answered by a task of
its own. What a socket starts ends with it; a turn is not its own. No SQL and no prompt text here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

from channels.consumer import AsyncConsumer, get_handler_name
from channels.exceptions import StopConsumer
from msgspec import UNSET

from chat import protocol, visitors
from chat.conf import get_settings
from chat.hub import Feed
from chat.protocol import (
    AnyClientFrame,
    BadFrame,
    ConversationOpen,
    GenerationStop,
    Limits,
    MessageAccepted,
    MessageContinue,
    MessageRegenerate,
    MessageSend,
    Ok,
    Ping,
    Pong,
    ServerFrame,
    StatusChanged,
)
from chat.rates import address_of
from chat.records import Accepted, Asked, Continue, HistoryError, Question, Redo
from chat.turns import Turns, get_turns
from llm.errors import RequestError
from llm.events import Status

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Asking = MessageSend | MessageRegenerate | MessageContinue

WRITABLE = "chat.writable"
"""Key of a scope: an `asyncio.Event` that is clear while the socket's reader lags behind, if the server has one.

Waiting costs nothing: a watcher is a place in a transcript, what it was not sent yet is stored once.
"""


class Gone(Exception):
    """The socket is closed or closing."""


class ChatConsumer(AsyncConsumer):
    """One open page."""

    channel_layer_alias = None

    visitor: UUID
    turns: Turns

    def __init__(self) -> None:
        self.feed = Feed(get_settings().watches_per_socket)
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0
        self._leave: list[Callable[[], None]] = [self.feed.close]

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except Gone:
            pass
        finally:  # `disconnect` is not called after an exception or a cancellation
            for leave in self._leave:
                leave()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def dispatch(self, message: Message) -> None:
        """As in the base class, but without a visit to the shared database thread for every frame."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_connect(self, message: Message) -> None:
        await self.send({"type": "websocket.accept"})
        visitor = await visitors.of_scope(self.scope)
        if visitor is None:
            await self._send(protocol.error("no_session"))
            await self.send({"type": "websocket.close", "code": protocol.NO_SESSION})
            return
        turns = get_turns()
        if turns.hub.sockets(visitor) >= get_settings().sockets_per_visitor:
            await self._send(protocol.error("too_many_sockets"))
            await self.send({"type": "websocket.close", "code": protocol.TOO_MANY_SOCKETS})
            return
        self.visitor, self.turns = visitor, turns
        controller = self.turns.controller
        self._leave += [self.turns.hub.join(visitor, self.feed), controller.on_status(self._status)]
        await self._send(self._hello())
        self._status(controller.status)
        self._spawn(self._forward())

    async def websocket_receive(self, message: Message) -> None:
        arrived = time.monotonic()
        if not hasattr(self, "visitor"):
            return  # closing
        text = message.get("text")
        try:
            if text is None:
                raise BadFrame("bad_frame", "Frames are text.")
            frame = protocol.parse(text)
        except BadFrame as bad:
            await self._send(protocol.error(bad.code, id=bad.id, message=bad.message))
            return
        if isinstance(frame, Ping):
            await self._send(Pong(id=frame.id))
        else:
            self._spawn(self._answer(frame, arrived))

    async def websocket_disconnect(self, message: Message) -> None:
        raise StopConsumer

    async def _answer(self, frame: AnyClientFrame, arrived: float) -> None:
        """Exactly one reply, whatever happens."""
        self._answering += 1
        try:
            match frame:
                case MessageSend() | MessageRegenerate() | MessageContinue():
                    await self._ask(frame, arrived)
                case GenerationStop():
                    await self.turns.stop(self.visitor, frame.generation)
                    await self._send(Ok(id=frame.id))
                case ConversationOpen():
                    await self._open(frame)
        except BadFrame as bad:
            await self._send(protocol.error(bad.code, id=bad.id, message=bad.message))
        except HistoryError as error:
            await self._send(protocol.error(error.code, id=frame.id))
        except RequestError as error:
            reply = protocol.error(error.code, id=frame.id, message=error.message, retry_after=error.retry_after)
            await self._send(reply)
        except Gone:
            raise
        except Exception:
            logger.exception("A frame could not be carried out")
            await self._send(protocol.error("error", id=frame.id))
        finally:
            self._answering -= 1
            self.feed.changed.set()  # a socket that waited for this reply to close may now

    async def _ask(self, frame: Asking, arrived: float) -> None:
        accepted = await self.turns.start(_asked(frame, self.visitor), frame.params, arrived, address_of(self.scope))
        await self._send(_accepted(frame.id, accepted))
        if transcript := self.turns.hub.transcript(accepted.generation):
            self.feed.follow(transcript, None if transcript.given else 0)

    async def _open(self, frame: ConversationOpen) -> None:
        transcript = await self.turns.watch(self.visitor, frame.conversation, frame.generation)
        await self._send(Ok(id=frame.id))
        if transcript is not None:
            known = self.turns.hub.transcript(transcript.generation) is transcript
            self.feed.follow(transcript, frame.next_seq if known else None)

    async def _forward(self) -> None:
        """What others tell this socket: its feed, as it comes and as fast as it is read."""
        writable = self.scope.get(WRITABLE)
        while True:
            await self.feed.changed.wait()
            if writable is not None:
                await writable.wait()
            for frame in self.feed.frames():
                await self._send(frame)
                if writable is not None:  # before the next frame is made, not after
                    await writable.wait()
            if self.turns.hub.restarting and self.feed.idle and not self._answering:
                await self.send({"type": "websocket.close", "code": protocol.SERVICE_RESTART})
                return

    def _hello(self) -> ServerFrame:
        limits = Limits(
            frame_bytes=protocol.MAX_FRAME_BYTES,
            message_chars=get_settings().message_max_chars,
            watches=get_settings().watches_per_socket,
        )
        return protocol.Hello(model=self.turns.controller.model, limits=limits)

    def _status(self, status: Status) -> None:
        frame = StatusChanged(
            state=status.state,
            model=self.turns.controller.model,
            progress=UNSET if status.progress is None else status.progress,
            message=UNSET if status.message is None else status.message,
        )
        self.feed.notice(StatusChanged, frame)

    async def _send(self, frame: ServerFrame) -> None:
        text = protocol.encode(frame)
        try:
            await self.send({"type": "websocket.send", "text": text})
        except Exception as error:  # servers differ in what they raise between a close and its `disconnect`
            raise Gone from error

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Gone):
            logger.error("A socket's task failed", exc_info=error)


class UnknownSocket(AsyncConsumer):
    """Closes a socket of an address that has none; without it each would be a traceback in the log."""

    channel_layer_alias = None

    async def websocket_connect(self, message: Message) -> None:
        await self.send({"type": "websocket.close"})
        raise StopConsumer


def _asked(frame: Asking, visitor: UUID) -> Asked:
    if isinstance(frame, MessageRegenerate):
        return Redo(visitor=visitor, frame=frame.id, answer=frame.message)
    if isinstance(frame, MessageContinue):
        return Continue(visitor=visitor, frame=frame.id, answer=frame.message)
    longest = get_settings().message_max_chars
    if len(frame.text) > longest:
        raise BadFrame("too_large", f"A message has at most {longest:,} characters.", frame.id)
    if not frame.text.strip():
        raise BadFrame("bad_frame", "The message is empty.", frame.id)
    return Question(
        visitor=visitor,
        frame=frame.id,
        text=frame.text,
        conversation=frame.conversation,
        branches=frame.parent is not UNSET,
        parent=None if frame.parent is UNSET else frame.parent,
    )


def _accepted(id: str, accepted: Accepted) -> MessageAccepted:
    return MessageAccepted(
        id=id,
        conversation=accepted.conversation,
        message=accepted.message,
        answer=accepted.answer,
        generation=accepted.generation,
    )
