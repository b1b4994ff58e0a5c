"""Serves the socket of the chat page: accept, parse, authorise, subscribe, forward.

Channels awaits one handler at a time, so nothing that can wait runs inside one: each frame is answered by a task of
its own. What a socket starts ends with it; a turn is not its own. Knows no SQL and no prompt text.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from channels.consumer import AsyncConsumer, get_handler_name
from channels.exceptions import StopConsumer
from msgspec import UNSET, UnsetType

from chat.accounts.revalidation import Revalidation
from chat.conf import get_settings
from chat.errors import BadFrame, HistoryError, SocketClosed, TooLarge
from chat.history.ids import is_temporary
from chat.history.values import Accepted, Asked, Caller, Continue, Question, Redo
from chat.streams.feed import Feed
from chat.turns.registry import Turns, get_turns
from chat.visitors import addresses, identity
from chat.wire import codec, frames
from chat.wire.writer import AsgiEvent, FrameWriter, Send
from llm.conf import get_settings as llm_settings
from llm.errors import RequestError
from llm.events import Status

logger = logging.getLogger(__name__)

Asking = frames.MessageSend | frames.MessageRegenerate | frames.MessageContinue


class ChatConsumer(AsyncConsumer):
    """Serves one open page."""

    channel_layer_alias = None

    caller: Caller
    turns: Turns

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._answering = 0
        self._leave: list[Callable[[], None]] = []

    async def __call__(self, scope: AsgiEvent, receive: Callable[[], Awaitable[AsgiEvent]], send: Send) -> None:
        self.writer = FrameWriter(scope, send, lambda: self.feed.frames())
        self.feed = Feed(get_settings().watches_per_socket, self.writer.wake)
        try:
            await super().__call__(scope, receive, send)
        except SocketClosed:
            pass
        finally:  # `disconnect` is not called after an exception or a cancellation
            for leave in self._leave:
                leave()
            self.feed.close()
            self.writer.end()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._leave.clear()  # they lead back here, and a full collection is rare

    async def dispatch(self, message: AsgiEvent) -> None:
        """Dispatch as the base class does, but without a visit to the shared database thread for every frame."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_connect(self, message: AsgiEvent) -> None:
        await self.send({"type": "websocket.accept"})
        caller = await identity.of_scope(self.scope)
        if caller is None:
            await self._refuse("no_session", frames.NO_SESSION)
            return
        turns = get_turns()
        if turns.hub.sockets(caller.visitor) >= get_settings().sockets_per_visitor:
            await self._refuse("too_many_sockets", frames.TOO_MANY)
            return
        self.caller, self.turns = caller, turns
        controller = self.turns.controller
        session = Revalidation(get_settings().revalidate_seconds, self._remains, self._sign_out)
        self._leave += [
            self.turns.hub.join(caller.visitor, self.feed, session.now),
            controller.on_status(self._status),
            session.close,
        ]
        await self.writer.reply(self._hello())
        self._status(controller.status)
        self._spawn(self._forward())

    async def websocket_receive(self, message: AsgiEvent) -> None:
        if hasattr(self, "caller"):
            self._spawn(self._answer(message, time.monotonic()))
        else:  # it is closing
            self.writer.answered()

    async def websocket_disconnect(self, message: AsgiEvent) -> None:
        raise StopConsumer

    async def _answer(self, message: AsgiEvent, arrived: float) -> None:
        """Carry out a frame and send exactly one reply, whatever happens."""
        self._answering += 1
        id: str | UnsetType = UNSET
        try:
            if (text := message.get("text")) is None:
                raise BadFrame("Frames are text.")
            frame = codec.parse(text)
            id = frame.id
            await self._carry_out(frame, arrived)
        except BadFrame as bad:
            await self.writer.reply(codec.error(bad.code, id=bad.id, message=bad.message))
        except RequestError as error:
            refused = codec.error(error.code, id=id, message=error.message, retry_after=error.retry_after)
            await self.writer.reply(refused)
        except SocketClosed:
            raise
        except Exception:
            logger.exception("A frame could not be carried out")
            await self.writer.reply(codec.error("error", id=id))
        finally:
            self._answering -= 1
            self.writer.answered()
            self.writer.wake()  # a socket that waited for this reply to close may now

    async def _carry_out(self, frame: frames.AnyClientFrame, arrived: float) -> None:
        match frame:
            case frames.Ping():
                await self.writer.reply(frames.Pong(id=frame.id))
            case frames.MessageSend() | frames.MessageRegenerate() | frames.MessageContinue():
                await self._ask(frame, arrived)
            case frames.GenerationStop():
                await self.turns.stop(self.caller, frame.generation)
                await self.writer.reply(frames.Ok(id=frame.id))
            case frames.ConversationOpen():
                await self._open(frame)

    async def _ask(self, frame: Asking, arrived: float) -> None:
        accepted = await self.turns.start(
            _asked(frame, self.caller), frame.params, arrived, addresses.of_scope(self.scope)
        )
        await self.writer.reply(_accepted(frame.id, accepted))
        transcript = self.turns.hub.transcript(accepted.generation)
        if transcript is None:  # accepted before, and perhaps by another process
            with contextlib.suppress(HistoryError):  # the frame has its reply
                transcript = await self.turns.watch(self.caller, accepted.conversation, accepted.generation)
        if transcript is not None:
            self.feed.follow(transcript, None if transcript.given else 0)

    async def _open(self, frame: frames.ConversationOpen) -> None:
        transcript = await self.turns.watch(self.caller, frame.conversation, frame.generation)
        await self.writer.reply(frames.Ok(id=frame.id))
        if transcript is not None:
            self.feed.follow(transcript, frame.next_seq)

    async def _forward(self) -> None:
        """Send what others tell this socket, until the server is about to end and nothing is left to say."""
        await self.writer.forward(self._over)
        await self.writer.close(frames.SERVICE_RESTART)

    def _over(self) -> bool:
        return self.turns.hub.restarting and self.feed.idle and not self._answering

    async def _remains(self) -> bool:
        return await identity.remains(self.scope["session"].session_key, self.caller)

    def _sign_out(self) -> None:
        self._spawn(self._refuse("no_session", frames.NO_SESSION))

    async def _refuse(self, error: str, code: int) -> None:
        await self.writer.reply(codec.error(error))
        await self.writer.close(code)

    def _hello(self) -> frames.Hello:
        limits = frames.Limits(
            frame_bytes=frames.MAX_FRAME_BYTES,
            message_chars=get_settings().message_max_chars,
            watches=get_settings().watches_per_socket,
            max_new_tokens=llm_settings().max_new_tokens,
            system_prompt=get_settings().system_prompt,
        )
        return frames.Hello(model=self.turns.controller.model, limits=limits, temporary=get_settings().temporary)

    def _status(self, status: Status) -> None:
        frame = frames.StatusChanged(
            state=status.state,
            model=self.turns.controller.model,
            defaults=self.turns.controller.defaults,
            progress=UNSET if status.progress is None else status.progress,
            message=UNSET if status.message is None else status.message,
        )
        self.feed.notice(frames.StatusChanged, frame)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, SocketClosed):
            logger.error("A socket's task failed", exc_info=error)


class UnknownSocket(AsyncConsumer):
    """Closes a socket of an address that has none; without it each would be a traceback in the log."""

    channel_layer_alias = None

    async def websocket_connect(self, message: AsgiEvent) -> None:
        await self.send({"type": "websocket.close"})
        raise StopConsumer


def _asked(frame: Asking, caller: Caller) -> Asked:
    if isinstance(frame, frames.MessageRegenerate):
        return Redo(caller=caller, request_id=frame.id, answer=frame.message)
    if isinstance(frame, frames.MessageContinue):
        return Continue(caller=caller, request_id=frame.id, answer=frame.message)
    longest = get_settings().message_max_chars
    if len(frame.text) > longest:
        raise TooLarge(f"A message has at most {longest:,} characters.", frame.id)
    if not frame.text.strip():
        raise BadFrame("The message is empty.", frame.id)
    return Question(
        caller=caller,
        request_id=frame.id,
        text=frame.text,
        conversation=frame.conversation,
        branches=frame.parent is not UNSET,
        parent=None if frame.parent is UNSET else frame.parent,
        temporary=frame.temporary,
        settings=frame.settings,
    )


def _accepted(id: str, accepted: Accepted) -> frames.MessageAccepted:
    return frames.MessageAccepted(
        id=id,
        conversation=accepted.conversation,
        message=accepted.message,
        answer=accepted.answer,
        generation=accepted.generation,
        temporary=is_temporary(accepted.conversation),
    )
