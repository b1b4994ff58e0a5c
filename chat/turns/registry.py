"""Keeps the turns of this process: makes one of a request, and finds it again for whoever watches or stops it.

Knows the history, the hub and the controller by their contracts; no frames of the wire, no SQL, no prompt text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary, WeakValueDictionary

import llm
from chat.cluster.cluster import Cluster
from chat.cluster.follower import RemoteTranscript
from chat.conf import get_settings
from chat.errors import NotFound, Restarting
from chat.history.contract import TurnHistory
from chat.history.history import get_history
from chat.history.values import INTERRUPTED, Accepted, Asked, Caller, StoredAnswer
from chat.streams.hub import Hub
from chat.streams.transcript import Transcript
from chat.turns.checkpoints import Checkpoints
from chat.turns.turn import Turn
from chat.visitors.limiter import Limit, Limiter
from llm.interface import Controller, Ticket
from llm.sampling import SamplingParams

RETRY_AFTER = 2.0
"""Seconds after which another process may well be there, when this one is told to stop."""

READS = 2
"""How many answers are read from the database at a time; each is whole, and may be long."""


class Turns:
    """Starts, finds and ends the turns of this process. Belongs to one event loop."""

    def __init__(self, controller: Controller, history: TurnHistory, hub: Hub) -> None:
        self.controller = controller
        self.history = history
        self.hub = hub
        self.cluster: Cluster | None = None
        self._checkpoints = Checkpoints()
        self._stored: WeakValueDictionary[UUID, Transcript] = WeakValueDictionary()  # of those who read now
        self._reading = asyncio.Semaphore(READS)
        self._limiter = Limiter("messages")
        self._starting: set[asyncio.Task[Any]] = set()
        self._running: dict[asyncio.Task[Any], Turn] = {}

    async def start(self, asked: Asked, params: SamplingParams, arrived: float, address: str = "") -> Accepted:
        """Accept and run a request; return when its rows are stored. Raises RequestError.

        Nothing is stored then, unless it is HistoryUnavailable. A request that was accepted before costs one read, no
        place and none of the visitor's messages a minute. Being cancelled does not undo what has begun.
        """
        if accepted := await self.history.accepted(asked.caller, asked.request_id):
            return accepted
        if self.hub.restarting:
            raise Restarting(retry_after=RETRY_AFTER)
        return await asyncio.shield(_kept(self._starting, self._counted(asked, params, arrived, address)))

    async def stop(self, caller: Caller, generation: UUID) -> None:
        """End a generation of this caller, if it has not ended. Raises NotFound, RequestError."""
        if not await self.history.owns(caller, generation):
            raise NotFound
        await self.end(generation)

    async def end(self, generation: UUID) -> None:
        """End a generation of whomever, if it has not ended. Raises RequestError."""
        if not self.hub.stop(generation) and self.cluster is not None:
            await self.cluster.stop(generation)

    async def watch(self, caller: Caller, conversation: UUID, generation: UUID | None) -> Transcript | None:
        """Return what a generation has told, or the one under way, if there is one. Raises HistoryError."""
        async with self._reading:  # one reader fetches the text, those who came with it find it here
            transcript = await self._find(caller, conversation, generation)
        if isinstance(transcript, RemoteTranscript):
            # Who asked last is who still may: whoever asked before may have signed in since.
            transcript.read = partial(self._read, caller, conversation, transcript.generation)
            await transcript.showable()
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
        if self.cluster is not None and run.finished is None and stored.process != self.cluster.me:
            return self.cluster.watch(run.id, stored.process, partial(self._read, caller, conversation, run.id))
        # A turn is in the hub before its row exists, so a living row without one has lost its process.
        transcript = Transcript.of_stored(run.id, stored.text, run.finished or INTERRUPTED)
        self._stored[run.id] = transcript
        return transcript

    async def _read(self, caller: Caller, conversation: UUID, generation: UUID) -> StoredAnswer | None:
        async with self._reading:
            return await self.history.answer(caller, conversation, generation)

    def _known(self, generation: UUID) -> Transcript | None:
        remote = self.cluster.get(generation) if self.cluster is not None else None
        return self.hub.transcript(generation) or remote or self._stored.get(generation)

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
        """Be one of several processes from now on: `layer` connects them, `me` names this one in its rows."""
        self.cluster = Cluster(layer, me, self.hub)
        self.cluster.open()

    async def part(self) -> None:
        """Be alone again, after the other processes were told what they lack."""
        if self.cluster is not None:
            await self.cluster.aclose()
            self.cluster = None

    async def aclose(self) -> None:
        """End all turns as interrupted, their text stored."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for turn in self._running.values():
            turn.interrupt()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._checkpoints.aclose()
        self._limiter.close()

    async def _counted(self, asked: Asked, params: SamplingParams, arrived: float, address: str) -> Accepted:
        counted = await self._limiter.atake(message_limits(asked.caller.visitor, address))
        try:
            accepted = await self._start(asked, params, arrived)
        except BaseException:
            await self._limiter.agive_back(counted)
            raise
        if not accepted.new:
            await self._limiter.agive_back(counted)
        return accepted

    async def _start(self, asked: Asked, params: SamplingParams, arrived: float) -> Accepted:
        ticket = await self.controller.admit(str(asked.caller.visitor))
        transcript = Transcript(asked.generation)
        self.hub.add(transcript, ticket.cancel)
        try:
            accepted = await self.history.accept(asked)
            if accepted.store is not None:
                transcript.begin_with(accepted.text)
                turn = Turn(accepted.store, self.hub, self._checkpoints, accepted, ticket, transcript, arrived)
                self._run(turn, params.over(accepted.settings.params))
        except BaseException:
            self._drop(ticket, transcript)
            raise
        if accepted.store is None:
            self._drop(ticket, transcript)
        else:
            self.hub.announce(accepted.visitor, accepted.conversation)
        return accepted

    def _run(self, turn: Turn, params: SamplingParams) -> None:
        task = asyncio.create_task(turn.run(params))
        self._running[task] = turn
        task.add_done_callback(self._running.pop)
        task.add_done_callback(_seen)

    def _drop(self, ticket: Ticket, transcript: Transcript) -> None:
        """Undo a start. Its row may be there all the same, and somebody have found it: that one is told the end."""
        self.hub.remove(transcript.generation)
        transcript.push(INTERRUPTED)
        ticket.cancel()


def message_limits(visitor: UUID, address: str) -> list[Limit]:
    chat = get_settings()
    return [(chat.messages_per_minute, f"visitor {visitor}"), (chat.messages_per_minute_per_address, address)]


def _kept(tasks: set[asyncio.Task[Any]], coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Make a task that is referred to until it ends, and whose exception counts as seen."""
    task = asyncio.create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    task.add_done_callback(_seen)
    return task


def _seen(ended: asyncio.Task[Any]) -> None:
    """Look at its exception, so that asyncio does not complain that nobody did."""
    if not ended.cancelled():
        ended.exception()


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def get_turns() -> Turns:
    """Return the turns of this process and the running loop."""
    loop = asyncio.get_running_loop()
    if loop not in _turns:
        _turns[loop] = Turns(llm.get_controller(), get_history(), Hub())
    return _turns[loop]
