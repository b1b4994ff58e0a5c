"""Runs a turn: one question, from its acceptance to the stored end of its answer.

A turn belongs to the process, not to whoever asked: no socket can end it by going away. It knows no frames of the wire,
no SQL and no prompt text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from uuid import UUID

import msgspec

from chat.conf import get_settings
from chat.errors import SENTENCES, HistoryUnavailable
from chat.history.values import INTERRUPTED, Accepted, AnswerStore
from chat.streams.hub import Hub
from chat.streams.transcript import Transcript
from chat.turns.checkpoints import Checkpoints
from chat.turns.unwatched import UnwatchedTimer
from llm.errors import RequestError
from llm.events import Delta, Event, Finished, Started
from llm.interface import Ticket
from llm.request import GenerationRequest
from llm.sampling import SamplingParams

logger = logging.getLogger(__name__)

GAP = 0.04
"""Seconds between two deltas of a turn; text that arrives in between goes out as one."""

STORE_SECONDS = 30.0
"""How long the end of a turn is tried to be stored."""

FAILED = Finished(reason="error", code="error", message="Something went wrong while this answer was being written.")


class Turn:
    """Runs one accepted generation, tells its transcript, and writes to the store that took the message."""

    def __init__(
        self,
        store: AnswerStore,
        hub: Hub,
        checkpoints: Checkpoints,
        accepted: Accepted,
        ticket: Ticket,
        transcript: Transcript,
        arrived: float,
    ) -> None:
        self.store = store
        self.ending = False
        self._hub = hub
        self._checkpoints = checkpoints
        self._accepted = accepted
        self._ticket = ticket
        self._transcript = transcript
        self._arrived = arrived
        self._ttft: float | None = None
        self._pending: list[str] = []
        self._sent = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None
        self._generating: asyncio.Task[Finished] | None = None
        self._unwatched = UnwatchedTimer(get_settings().unwatched_seconds, self._give_up)
        self._given_up = False
        self._interrupted = False

    @property
    def generation(self) -> UUID:
        return self._accepted.generation

    @property
    def text(self) -> str:
        return self._transcript.text

    def interrupt(self) -> None:
        """End the turn as interrupted, unless it is ending already."""
        self._interrupted = True
        if self._generating is not None:
            self._generating.cancel()

    async def run(self, params: SamplingParams) -> None:
        """Run to the end, whatever happens: one final row, then one terminal event."""
        end, failure = None, INTERRUPTED
        self._transcript.on_watched = self._unwatched.watched
        self._unwatched.watched(bool(self._transcript.readers))
        self._generating = asyncio.create_task(self._generate(params))
        if self._interrupted:
            self._generating.cancel()
        try:
            end = await self._generating
        except asyncio.CancelledError:
            if not self._generating.cancelled():
                raise
        except RequestError as error:
            failure = Finished(reason="error", code=error.code, message=error.message)
        except Exception:
            logger.exception("Generation %s failed", self._accepted.generation)
            failure = FAILED
        finally:
            if end is None:
                self._leave()
            await self._finish(end or failure)

    def _leave(self) -> None:
        """Give the place back when the request has not come to an end of its own."""
        try:
            self._ticket.cancel()
        except Exception:
            logger.exception("The place of generation %s could not be given back", self._accepted.generation)

    async def _generate(self, params: SamplingParams) -> Finished:
        request = GenerationRequest(
            messages=self._accepted.prompt, params=params, conversation=str(self._accepted.conversation)
        )
        async with self._ticket.run(request) as events:
            end = await events.into(self._take)
        return _timed_out(end) if self._given_up and end.reason == "cancelled" else end

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._gather(event.text.replace("\0", ""))  # PostgreSQL refuses it
            return
        if isinstance(event, Started):
            self._unwatched.over()
            self._starting = asyncio.create_task(self._start())
        self._transcript.push(event)

    def _give_up(self) -> None:
        self._given_up = True
        self._ticket.cancel()

    def _gather(self, text: str) -> None:
        """Send the first text at once, later text at most every GAP seconds."""
        if not text:
            return
        if self._ttft is None:
            self._ttft = time.monotonic() - self._arrived
        self._pending.append(text)
        if self._timer is None:
            wait = self._sent + GAP - time.monotonic()
            if wait > 0:
                self._timer = asyncio.get_running_loop().call_later(wait, self._flush)
            else:
                self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending:
            text = "".join(self._pending)
            self._pending.clear()
            self._sent = time.monotonic()
            self._transcript.push(Delta(text))
            if not self.ending:
                self._checkpoints.mark(self)

    async def _finish(self, end: Finished) -> None:
        self.ending = True
        self._unwatched.over()
        self._flush()
        self._checkpoints.drop(self)
        end = msgspec.structs.replace(end, timings=msgspec.structs.replace(end.timings, ttft=self._ttft))
        if self._starting is not None:
            await asyncio.wait([self._starting])
        visitor = await self._store(end)
        if visitor is not None:
            self._hub.retire(self._accepted.generation)
        else:
            end = INTERRUPTED  # what the row says, or what the next beat makes it say, since nobody writes it any more
            self._hub.remove(self._accepted.generation)
        self._transcript.push(end)
        self._hub.announce(visitor or self._accepted.visitor, self._accepted.conversation)

    async def _start(self) -> None:
        """Record that it left the queue; if that fails, the first checkpoint or the end records it."""
        try:
            await self.store.started(self._accepted.generation)
        except Exception as error:  # noqa: BLE001 whatever it was, the answer goes on
            logger.warning("The start of generation %s could not be stored: %s", self._accepted.generation, error)

    async def _store(self, end: Finished) -> UUID | None:
        """Store the end and return whose it is; None if it has another end, or cannot be stored."""
        deadline, wait = time.monotonic() + STORE_SECONDS, 0.05
        while True:
            try:
                return await self.store.finish(self._accepted.generation, self._transcript.text, end)
            except Exception as error:
                if not isinstance(error, HistoryUnavailable) or time.monotonic() + wait > deadline:
                    logger.exception("The end of generation %s could not be stored", self._accepted.generation)
                    return None
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2.0)


def _timed_out(end: Finished) -> Finished:
    return msgspec.structs.replace(end, reason="timeout", code="unwatched", message=SENTENCES["unwatched"])
