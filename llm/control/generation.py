"""Follows one request from its ticket to its end: the states that it passes and the events that it tells.

A generation knows its backend and the clock; the controller decides who gets a place, and when.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from llm.backends.base import Backend, End, Job, Piece, Prepared
from llm.conf import Settings
from llm.errors import RequestError
from llm.event_stream import EventStream
from llm.events import Delta, Event, Finished, FinishReason, Queued, Started, Timings, Usage
from llm.request import GenerationRequest

log = logging.getLogger(__name__)

FAILED = "The model failed on this request."

Push = Callable[[Event], None]
Clock = Callable[[], float]

RUN_WITHIN = 10.0
"""Seconds for which a ticket that nobody runs is kept."""


class Place(enum.Enum):
    """The kind of place that a request holds."""

    WAITING = "waiting"
    RUNNING = "running"
    NONE = "none"


class Owner(Protocol):
    """The controller, as a generation sees it; it gives out the places of `model`."""

    model: str

    def give_back(self, generation: Generation) -> None:
        """Free the place of `generation` and give it to the next request. Idempotent, and never raises."""

    def tell_place(self, generation: Generation) -> None:
        """Call `generation.tell_place` with its present position."""

    def charge(self, generation: Generation, tokens: int) -> None:
        """Note that `generation` was served this many tokens."""

    def prepared(self, generation: Generation) -> None:
        """Note that the `need` of `generation` is known from now on."""


class Generation:
    """One admitted request: the controller's ticket.

    Only its task ends it: Finished is pushed exactly once, after the place is free again, and the place is free only
    when the backend has left the sequence. Whatever fails on the way, its reader's `push` included, is its own failure.
    """

    def __init__(self, backend: Backend, visitor: str, owner: Owner, limits: Settings, clock: Clock) -> None:
        self.visitor = visitor
        self.place = Place.NONE
        self.need: int | None = None
        """Token places of KV memory that the request may take; None until it is prepared."""
        self.usage = Usage()
        self.outcome: str | None = None
        self.started_at: float | None = None
        self._backend = backend
        self._owner = owner
        self._limits = limits
        self._clock = clock
        self._arrived_at = clock()
        self._first_text_at: float | None = None
        self._first_token_at: float | None = None
        self._last_token_at: float | None = None
        self._push: Push | None = None
        self._job: Job | None = None
        loop = asyncio.get_running_loop()
        self._placed: asyncio.Future[None] = loop.create_future()
        self._cancelled: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[End] = loop.create_future()
        self._last_place: tuple[int, int] | None = None
        self._cause: tuple[FinishReason, str | None, str | None] | None = None
        """The reason, code and message of an end that came as a cancel."""
        self._timer = loop.call_later(
            limits.queue_timeout, self._end_as, "timeout", "queue_timeout", "Nobody could answer in time."
        )
        self.task: asyncio.Task[None] | None = None
        self._expiry = loop.call_later(RUN_WITHIN, self.cancel)

    def run(self, request: GenerationRequest) -> EventStream:
        stream = EventStream(self.cancel)
        self.run_into(request, stream.push)
        return stream

    def run_into(self, request: GenerationRequest, push: Push) -> None:
        """Run the request as `run` does, but call `push` on the loop with every event."""
        if self.task is not None:
            raise RuntimeError("a ticket is run once")
        self.task = asyncio.create_task(self._run(request, push))
        self._expiry.cancel()
        self._push = push

    def cancel(self) -> None:
        if self._cancelled.done():
            return
        self._cancelled.set_result(None)
        self._expiry.cancel()
        self._timer.cancel()
        if self._job is not None:
            try:
                self._job.cancel()
            except Exception:
                log.exception("a generation could not be cancelled: it goes on to its end")
        elif self.task is None or self.place is Place.WAITING:
            self.outcome = "cancelled" if self._cause is None else self._cause[0]
            self._owner.give_back(self)

    def interrupt(self) -> None:
        """Cancel it because whoever asked for it is gone, not because they wanted that."""
        self._end_as("interrupted")

    def _end_as(self, reason: FinishReason, code: str | None = None, message: str | None = None) -> None:
        if not self._cancelled.done():
            self._cause = reason, code, message
            self.cancel()

    def _tell(self, event: Event) -> None:
        """Push an event. If the reader fails to take it, there are no further ones before Finished."""
        if self._push is None:
            return
        try:
            self._push(event)
        except Exception:
            log.exception("whoever reads a generation failed to take an event")
            self._fail()

    def _fail(self) -> None:
        """End with an error; nothing more is told before that."""
        self._push = None
        self._end_as("error", "error", FAILED)

    # Called by the controller

    @property
    def computed(self) -> bool:
        """True from the time that the backend has the request until it has left it."""
        return self._job is not None and not self._ended.done()

    def give_place(self) -> None:
        self.place = Place.RUNNING
        if not self._placed.done():
            self._placed.set_result(None)

    def tell_place(self, position: int, size: int, eta: float | None) -> None:
        """Tell the waiting visitor their position, if it has changed."""
        waits = self.place is Place.WAITING and not self._cancelled.done()
        if self._push is None or not waits or self._last_place == (position, size):
            return
        self._last_place = (position, size)
        self._tell(Queued(position=position, size=size, eta=eta))

    # Its own task

    async def _run(self, request: GenerationRequest, push: Push) -> None:
        end = End(reason="interrupted", usage=Usage())  # what holds if this task itself is cancelled
        try:
            end = await self._until_end(request)
        except RequestError as error:
            end = End(reason="error", usage=Usage(), code=error.code, message=error.message)
        except Exception:
            log.exception("a generation failed")
            end = End(reason="error", usage=Usage(), code="error", message=FAILED)
        finally:
            self._timer.cancel()
            if self._cause is not None and end.reason == "cancelled":
                reason, code, message = self._cause
                end = msgspec.structs.replace(end, reason=reason, code=code, message=message)
            self.usage, self.outcome = end.usage, end.reason
            self._owner.give_back(self)
            self._tell_end(end, push)

    def _tell_end(self, end: End, push: Push) -> None:
        finished = Finished(
            reason=end.reason,
            usage=end.usage,
            timings=self._timings(),
            code=end.code,
            message=end.message,
            model=self._owner.model if self.started_at is not None else "",
        )
        try:
            push(finished)
        except Exception:
            log.exception("whoever reads a generation failed to take its end")

    async def _until_end(self, request: GenerationRequest) -> End:
        if self.place is Place.WAITING:
            self._owner.tell_place(self)
        request.params.validated()
        preparing = asyncio.ensure_future(asyncio.to_thread(self._backend.prepare, request))
        if not await self._unless_cancelled(preparing):
            preparing.add_done_callback(_forget)
            return End(reason="cancelled", usage=Usage())
        prepared = preparing.result()  # a request that cannot be served hears so now, not when its turn has come
        self.need = prepared.need
        self._owner.prepared(self)
        if not await self._unless_cancelled(self._placed):
            return End(reason="cancelled", usage=Usage())
        self.started_at = self._clock()
        self._tell(Started(queue_time=self.started_at - self._arrived_at))
        if self._cancelled.done():
            return End(reason="cancelled", usage=Usage())
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(
            self._limits.generation_timeout, self._end_as, "timeout", "generation_timeout", "The answer took too long."
        )
        self._job = self._backend.start(prepared, self._receive)
        return await self._ended

    async def _unless_cancelled(self, awaited: asyncio.Future[None] | asyncio.Future[Prepared]) -> bool:
        await asyncio.wait({awaited, self._cancelled}, return_when=asyncio.FIRST_COMPLETED)
        return not self._cancelled.done()

    def _receive(self, event: Piece | End) -> None:
        """Take what the backend emits. If a piece cannot be taken, the answer ends with what was told before."""
        if isinstance(event, End):
            if not self._ended.done():
                self._ended.set_result(event)
            return
        try:
            self._take(event)
        except Exception:
            log.exception("a piece of an answer could not be taken")
            self._fail()

    def _take(self, piece: Piece) -> None:
        now = self._clock()
        if piece.tokens:
            self._first_token_at = self._first_token_at or now
            self._last_token_at = now
            self._owner.charge(self, piece.tokens)
        if piece.text:
            self._first_text_at = self._first_text_at or now
            self._tell(Delta(piece.text))

    def _timings(self) -> Timings:
        queue_time = (self.started_at if self.started_at is not None else self._clock()) - self._arrived_at
        ttft = None if self._first_text_at is None else self._first_text_at - self._arrived_at
        decode_time = rate = None
        if self._first_token_at is not None and self._last_token_at is not None and self.usage.completion_tokens > 1:
            decode_time = self._last_token_at - self._first_token_at
            rate = (self.usage.completion_tokens - 1) / decode_time if decode_time > 0 else None
        return Timings(queue_time=queue_time, ttft=ttft, decode_time=decode_time, tokens_per_second=rate)


def _forget(prepared: asyncio.Future[Prepared]) -> None:
    """Retrieve the exception of a preparation that nobody awaits, so that asyncio does not complain about it."""
    if not prepared.cancelled():
        prepared.exception()
