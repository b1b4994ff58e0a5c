"""Gives a sign of life of this web process in its row, and ends the answers that a dead one has left.

Time is the database's clock alone, so that the clocks of machines need not agree. Knows rows; what runs in this process
it asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.db import Error, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from chat.history import generations
from chat.history.values import INTERRUPTED
from chat.models import Generation, Process

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

BEAT = 2.0
"""Seconds between two signs of life."""

PATIENCE = 8.0
"""Seconds after which a query of a beat is given up; others take this process for dead soon after."""

DEAD = timedelta(seconds=10)
"""How long a process may be silent before it is presumed dead, and how long one must beat to be sure of the others."""

FORGOTTEN = timedelta(hours=1)
"""How long the row of a dead process stays; one that comes back within this time is the same process."""

Ended = Callable[[UUID, UUID], None]
"""Called with the visitor and the conversation of each generation that was ended, unless it was a temporary chat's."""


class Heartbeat:
    """Beats for this process. Belongs to one event loop; its queries have a thread and a connection of their own.

    A process is sure of the others only after DEAD of unbroken beats, so that an outage of the database, or a sleep of
    the whole machine, ends nobody's answers.
    """

    def __init__(self, runs: Callable[[UUID], bool], ended: Ended, process: UUID = generations.PROCESS) -> None:
        self._runs = runs
        self._ended = ended
        self._process = process
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-heart")
        self._beating: asyncio.Task[None] | None = None
        self._sound_since: datetime | None = None
        self._sure = False
        self._failing = False

    async def start(self) -> None:
        """Begin to beat; return after the first beat, which may have failed."""
        await self.beat()
        self._beating = asyncio.create_task(self._beat_on())

    async def aclose(self) -> None:
        """End, and delete the row: whatever this process still has under way is at once a dead one's."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        try:
            await self._run(self._leave)
        except Exception as error:  # noqa: BLE001 others find the row dead soon, and the end of a process goes on
            logger.warning("The row of this process could not be deleted: %s", error)
        self._thread.shutdown(wait=False)

    async def beat(self) -> None:
        """Give a sign of life, then end the generations that nobody runs any more."""
        try:
            await self._run(self._give_sign)
            await self._end(await self._run(self._unfinished))
        except (Error, TimeoutError) as error:
            if not self._failing:
                logger.error("No sign of life could be given; trying on: %s", str(error) or "no answer")
            self._sound_since = None
            self._failing = True
        else:
            self._failing = False

    async def _beat_on(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            try:
                await self.beat()
            except Exception:
                logger.exception("A beat failed")

    async def _end(self, unfinished: tuple[list[UUID], list[UUID]]) -> None:
        """End those of the dead, and those of this process that it does not run: their end could not be stored."""
        of_dead, own = unfinished
        if lost := [*of_dead, *(generation for generation in own if not self._runs(generation))]:
            ended = await self._run(self._interrupt, lost)
            if ended:
                logger.warning("%d answers were interrupted: nobody writes them any more", len(ended))
            for visitor, conversation in ended:
                if conversation is not None:
                    self._ended(visitor, conversation)

    def _give_sign(self) -> None:
        row = Process.objects.filter(pk=self._process)
        before = row.values_list("last_seen", flat=True).first()
        if not row.update(last_seen=Now()):
            Process.objects.create(pk=self._process, last_seen=Now())
        now: datetime = row.values_list("last_seen", flat=True).get()
        if self._sound_since is None or before is None or now - before > DEAD / 2:
            self._sound_since = now
        self._sure = now - self._sound_since >= DEAD

    def _unfinished(self) -> tuple[list[UUID], list[UUID]]:
        """Return the generations under way of dead processes, and of this one."""
        living = Generation.objects.filter(state__in=Generation.LIVE)
        own = list(living.filter(process=self._process).values_list("pk", flat=True))
        if not self._sure:
            return [], own
        Process.objects.filter(last_seen__lt=Now() - FORGOTTEN).delete()
        alive = Process.objects.filter(last_seen__gt=Now() - DEAD)
        return list(living.exclude(process__in=alive.values("pk")).values_list("pk", flat=True)), own

    def _interrupt(self, lost: Iterable[UUID]) -> list[tuple[UUID, UUID | None]]:
        with transaction.atomic():
            living: QuerySet[Generation] = Generation.objects.filter(pk__in=lost, state__in=Generation.LIVE)
            # A process that stopped within a transaction may hold some; they wait until the database has ended that.
            rows = list(living.select_for_update(skip_locked=True).values_list("pk", "visitor", "conversation"))
            generations.end(Generation.objects.filter(pk__in=[key for key, _, _ in rows]), INTERRUPTED)
        return [(visitor, conversation) for _, visitor, conversation in rows]

    def _leave(self) -> None:
        Process.objects.filter(pk=self._process).delete()
        connection.close()

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        def guarded() -> R:
            try:
                return function(*args, **kwargs)
            except Error:
                connection.close()  # the next one begins with a new connection
                raise

        async with asyncio.timeout(PATIENCE):
            return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)
