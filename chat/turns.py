"""A turn: one question, from its acceptance to the stored end of its answer.

It belongs to the process, not to whoever asked: no socket can end it by going away. Knows the history, the hub and
the controller by their contracts; no frames of the wire, no SQL, no prompt text.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

import msgspec

import llm
from chat.history import INTERRUPTED, History, get_history
from chat.hub import Hub
from chat.records import Accepted, HistoryUnavailable, NotFound, Question, Redo
from chat.transcript import Transcript
from llm.errors import RequestError
from llm.events import Delta, Finished, Started
from llm.interface import Controller, Ticket
from llm.request import GenerationRequest
from llm.sampling import SamplingParams

logger = logging.getLogger(__name__)

GAP = 0.04
"""Seconds between two deltas of a turn; what arrives in between goes out as one."""

STORE_SECONDS = 30.0
"""How long the end of a turn is tried to be stored."""

RETRY_AFTER = 2.0
"""Seconds after which another process may well be there, when this one is told to stop."""

FAILED = Finished(reason="error", code="error", message="Something went wrong while this answer was being written.")


class Restarting(RequestError):
    """This process is about to end and begins nothing new."""

    code = "restarting"

    def __init__(self) -> None:
        super().__init__("The server is restarting. It will be back in a moment.", retry_after=RETRY_AFTER)


class Turn:
    """Runs one accepted generation and tells its transcript."""

    def __init__(
        self, turns: Turns, accepted: Accepted, ticket: Ticket, transcript: Transcript, arrived: float
    ) -> None:
        self._turns = turns
        self._accepted = accepted
        self._ticket = ticket
        self._transcript = transcript
        self._arrived = arrived
        self._ttft: float | None = None
        self._pending: list[str] = []
        self._sent = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._starting: asyncio.Task[None] | None = None

    async def run(self, params: SamplingParams) -> None:
        """To the end, whatever happens: one final row, then one terminal event."""
        end = FAILED
        try:
            end = await self._generate(params)
        except asyncio.CancelledError:
            end = INTERRUPTED
            raise
        except RequestError as error:
            end = Finished(reason="error", code=error.code, message=error.message)
        except Exception:
            logger.exception("Generation %s failed", self._accepted.generation)
        finally:
            await self._finish(end)

    async def _generate(self, params: SamplingParams) -> Finished:
        request = GenerationRequest(
            messages=self._accepted.prompt, params=params, conversation=str(self._accepted.conversation)
        )
        async with self._ticket.run(request) as events:
            async for event in events:
                match event:
                    case Delta(text):
                        self._gather(text.replace("\0", ""))  # PostgreSQL refuses it
                    case Finished():
                        return event
                    case Started():
                        self._transcript.push(event)
                        self._starting = asyncio.create_task(self._turns.history.started(self._accepted.generation))
                    case _:
                        self._transcript.push(event)
        return FAILED

    def _gather(self, text: str) -> None:
        """The first text goes out at once, later text at most every GAP seconds."""
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

    async def _finish(self, end: Finished) -> None:
        self._flush()
        end = msgspec.structs.replace(end, timings=msgspec.structs.replace(end.timings, ttft=self._ttft))
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        if not await self._store(end):
            end = INTERRUPTED  # what the row says, or what the next start of the site will make it say
        self._transcript.push(end)
        self._turns.hub.retire(self._accepted.generation)
        self._turns.hub.announce(self._accepted.visitor, self._accepted.conversation)

    async def _store(self, end: Finished) -> bool:
        deadline, wait = time.monotonic() + STORE_SECONDS, 0.05
        while True:
            try:
                return await self._turns.history.finish(self._accepted.generation, self._transcript.text, end)
            except HistoryUnavailable:
                if time.monotonic() + wait > deadline:
                    logger.exception("The end of generation %s could not be stored", self._accepted.generation)
                    return False
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2.0)


class Turns:
    """The turns of this process. Belongs to one event loop."""

    def __init__(self, controller: Controller, history: History, hub: Hub) -> None:
        self.controller = controller
        self.history = history
        self.hub = hub
        self._starting: set[asyncio.Task[Any]] = set()
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self, asked: Question | Redo, params: SamplingParams, arrived: float) -> Accepted:
        """Accept and run; returns when the rows are stored. Raises RequestError or HistoryError: nothing is then.

        A frame that was accepted before costs one read and no place. Being cancelled does not undo what has begun.
        """
        if accepted := await self.history.accepted(asked.visitor, asked.frame):
            return accepted
        if self.hub.restarting:
            raise Restarting
        return await asyncio.shield(_kept(self._starting, self._start(asked, params, arrived)))

    async def stop(self, visitor: UUID, generation: UUID) -> None:
        """End a generation of this visitor, if it has not ended. Raises NotFound."""
        if not await self.history.owns(visitor, generation):
            raise NotFound
        self.hub.stop(generation)

    async def watch(self, visitor: UUID, conversation: UUID, generation: UUID | None) -> Transcript | None:
        """What a generation told, or the one that runs in the conversation, if one does. Raises NotFound."""
        stored = await self.history.answer(visitor, conversation, generation)
        if stored is None:
            return None
        run = stored.generation
        # A turn is in the hub before its row exists, so a living row without one has lost its process.
        return self.hub.transcript(run.id) or Transcript.of_stored(run.id, stored.text, run.finished or INTERRUPTED)

    async def drain(self, seconds: float) -> None:
        """Begin nothing new, tell every socket, and let the turns under way end by themselves for so long."""
        self.hub.restart(RETRY_AFTER)
        deadline = time.monotonic() + seconds
        while under_way := {*self._starting, *self._running}:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait(under_way, timeout=left)

    async def aclose(self) -> None:
        """End all turns as interrupted, their text stored."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _start(self, asked: Question | Redo, params: SamplingParams, arrived: float) -> Accepted:
        ticket = await self.controller.admit(str(asked.visitor))
        transcript = Transcript(asked.generation)
        self.hub.add(transcript, ticket.cancel)
        try:
            accepted = await self.history.accept(asked)
        except BaseException:
            self._drop(ticket, asked.generation)
            raise
        if not accepted.new:
            self._drop(ticket, asked.generation)
            return accepted
        _kept(self._running, Turn(self, accepted, ticket, transcript, arrived).run(params))
        self.hub.announce(accepted.visitor, accepted.conversation)
        return accepted

    def _drop(self, ticket: Ticket, generation: UUID) -> None:
        self.hub.remove(generation)
        ticket.cancel()


def _kept(tasks: set[asyncio.Task[Any]], coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that is referred to until it ends, and whose exception counts as seen."""
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    return task


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def get_turns() -> Turns:
    """The turns of this process and loop."""
    loop = asyncio.get_running_loop()
    if loop not in _turns:
        _turns[loop] = Turns(llm.get_controller(), get_history(), Hub())
    return _turns[loop]
