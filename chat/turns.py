"""The turns of this process: how a question becomes one, and who finds it again.

Knows the history, the hub and the controller by their contracts; no frames of the wire, no SQL, no prompt text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakValueDictionary

import llm
from chat.checkpoints import Checkpoints
from chat.contract import INTERRUPTED, TurnHistory
from chat.elsewhere import Elsewhere
from chat.histories import get_history
from chat.hub import Hub
from chat.rates import Rates
from chat.records import Accepted, Asked, Caller, NotFound, StoredAnswer
from chat.remote import Remote
from chat.transcript import Transcript
from chat.turn import Turn
from llm.errors import RequestError
from llm.interface import Controller, Ticket
from llm.sampling import SamplingParams

RETRY_AFTER = 2.0
"""Seconds after which another process may well be there, when this one is told to stop."""

READS = 2
"""Answers that are on their way from the database at a time; each is whole, and may be long."""


class Restarting(RequestError):
    """This process is about to end and begins nothing new."""

    code = "restarting"

    def __init__(self) -> None:
        super().__init__("The server is restarting. It will be back in a moment.", retry_after=RETRY_AFTER)


class Turns:
    """The turns of this process. Belongs to one event loop."""

    def __init__(self, controller: Controller, history: TurnHistory, hub: Hub) -> None:
        self.controller = controller
        self.history = history
        self.hub = hub
        self.elsewhere: Elsewhere | None = None
        self._checkpoints = Checkpoints(history)
        self._stored: WeakValueDictionary[UUID, Transcript] = WeakValueDictionary()  # of those who read now
        self._reading = asyncio.Semaphore(READS)
        self._rates = Rates()
        self._starting: set[asyncio.Task[Any]] = set()
        self._running: dict[asyncio.Task[Any], Turn] = {}

    async def start(self, asked: Asked, params: SamplingParams, arrived: float, address: str = "") -> Accepted:
        """Accept and run; returns when the rows are stored. Raises RequestError or HistoryError: nothing is then.

        A frame that was accepted before costs one read, no place and none of the visitor's messages a minute.
        Being cancelled does not undo what has begun.
        """
        if accepted := await self.history.accepted(asked.caller, asked.frame):
            return accepted
        if self.hub.restarting:
            raise Restarting
        return await asyncio.shield(_kept(self._starting, self._counted(asked, params, arrived, address)))

    async def stop(self, caller: Caller, generation: UUID) -> None:
        """End a generation of this caller, if it has not ended. Raises NotFound, RequestError."""
        if not await self.history.owns(caller, generation):
            raise NotFound
        await self.end(generation)

    async def end(self, generation: UUID) -> None:
        """The same, where it is known whose it is."""
        if not self.hub.stop(generation) and self.elsewhere is not None:
            await self.elsewhere.stop(generation)

    async def watch(self, caller: Caller, conversation: UUID, generation: UUID | None) -> Transcript | None:
        """What a generation told, or the one that runs in the conversation, if one does. Raises NotFound."""
        async with self._reading:  # one reader fetches the text, those who came with it find it here
            transcript = await self._find(caller, conversation, generation)
        if isinstance(transcript, Remote):
            await transcript.known.wait()
        return transcript

    async def _find(self, caller: Caller, conversation: UUID, generation: UUID | None) -> Transcript | None:
        if generation is not None and (transcript := self._known(generation)):
            if await self.history.owns(caller, generation):
                return transcript
            raise NotFound
        stored = await self.history.answer(caller, conversation, generation)
        if stored is None:
            return None
        run = stored.generation
        if transcript := self._known(run.id):
            return transcript
        if self.elsewhere is not None and run.finished is None and stored.owner != self.elsewhere.me:
            return self.elsewhere.watch(run.id, stored.owner, lambda: self._read(caller, conversation, run.id))
        # A turn is in the hub before its row exists, so a living row without one has lost its process.
        transcript = Transcript.of_stored(run.id, stored.text, run.finished or INTERRUPTED)
        self._stored[run.id] = transcript
        return transcript

    async def _read(self, caller: Caller, conversation: UUID, generation: UUID) -> StoredAnswer | None:
        async with self._reading:
            return await self.history.answer(caller, conversation, generation)

    def _known(self, generation: UUID) -> Transcript | None:
        elsewhere = self.elsewhere.get(generation) if self.elsewhere is not None else None
        return self.hub.transcript(generation) or elsewhere or self._stored.get(generation)

    async def drain(self, seconds: float) -> None:
        """Begin nothing new, tell every socket, and let the turns under way end by themselves for so long."""
        self.hub.restart(RETRY_AFTER)
        deadline = time.monotonic() + seconds
        while under_way := {*self._starting, *self._running}:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await asyncio.wait(under_way, timeout=left)

    def meet(self, layer: Any, me: UUID) -> None:
        """Be one of several processes from now on: `layer` connects them, `me` is the owner of this one's rows."""
        self.elsewhere = Elsewhere(layer, me, self.hub)
        self.elsewhere.open()

    async def part(self) -> None:
        """Be alone again; what is watched elsewhere is told what it lacks."""
        if self.elsewhere is not None:
            await self.elsewhere.aclose()
            self.elsewhere = None

    async def aclose(self) -> None:
        """End all turns as interrupted, their text stored."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for turn in self._running.values():
            turn.interrupt()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._checkpoints.aclose()
        await self._rates.aclose()

    async def _counted(self, asked: Asked, params: SamplingParams, arrived: float, address: str) -> Accepted:
        counted = await self._rates.take(asked.caller.visitor, address)
        try:
            accepted = await self._start(asked, params, arrived)
        except BaseException:
            await self._rates.give_back(counted)
            raise
        if not accepted.new:
            await self._rates.give_back(counted)
        return accepted

    async def _start(self, asked: Asked, params: SamplingParams, arrived: float) -> Accepted:
        ticket = await self.controller.admit(str(asked.caller.visitor))
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
        transcript.begin_with(accepted.text)
        self._run(
            Turn(self.history, self.hub, self._checkpoints, accepted, ticket, transcript, arrived),
            params.over(accepted.settings.params),
        )
        self.hub.announce(accepted.visitor, accepted.conversation)
        return accepted

    def _run(self, turn: Turn, params: SamplingParams) -> None:
        task = asyncio.create_task(turn.run(params))
        self._running[task] = turn
        task.add_done_callback(self._running.pop)
        task.add_done_callback(_seen)

    def _drop(self, ticket: Ticket, generation: UUID) -> None:
        self.hub.remove(generation)
        ticket.cancel()


def _kept(tasks: set[asyncio.Task[Any]], coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """A task that is referred to until it ends, and whose exception counts as seen."""
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_seen)
    return task


def _seen(ended: asyncio.Task[Any]) -> None:
    """Its exception counts as seen."""
    if not ended.cancelled():
        ended.exception()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def get_turns() -> Turns:
    """The turns of this process and loop."""
    loop = asyncio.get_running_loop()
    if loop not in _turns:
        _turns[loop] = Turns(llm.get_controller(), get_history(), Hub())
    return _turns[loop]
