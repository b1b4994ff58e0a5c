"""The web processes: each gives a sign of life in its row, and ends what a dead one has left.

Time is the database's clock alone, so that the clocks of machines need not agree. Knows rows; what runs in this process
it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar
from uuid import UUID

from django.db import Error, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from chat import generations
from chat.contract import INTERRUPTED
from chat.history import PROCESS
from chat.models import Generation, Process

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

BEAT = 2.0
"""Seconds between two signs of life."""

DEAD = timedelta(seconds=10)
"""So long without one, and a process is presumed dead. It takes as long of its own to be sure of the others."""

FORGOTTEN = timedelta(hours=1)
"""How long the row of a dead process stays; one that comes back within that time is the same process."""

Ended = Callable[[UUID, UUID], None]
"""Told of each generation that was ended here: its visitor and its conversation, unless that is in no table."""


class Heart:
    """That of this process. Belongs to one event loop; its queries have a thread and a connection of their own.

    A process is sure of the others only after DEAD of unbroken beats, so that an outage of the database, or a sleep of
    the whole machine, ends nobody's answers.
    """

    def __init__(self, runs: Callable[[UUID], bool], ended: Ended, owner: UUID = PROCESS) -> None:
        self._runs = runs
        self._ended = ended
        self._owner = owner
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-heart")
        self._beating: asyncio.Task[None] | None = None
        self._sound_since: datetime | None = None
        self._sure = False
        self._failing = False

    async def start(self) -> None:
        """The first beat, and all that follow. Returns after the first, which may have failed."""
        await self.beat()
        self._beating = asyncio.create_task(self._beat_on())

    async def aclose(self) -> None:
        """The last one: the row goes, and whoever still owned something is dead at once."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.gather(self._beating, return_exceptions=True)
        with contextlib.suppress(Error):
            await self._run(self._leave)
        self._thread.shutdown(wait=False)

    async def beat(self) -> None:
        """Give a sign of life, then end what nobody runs any more."""
        try:
            await self._run(self._give_sign)
            await self._end(await self._run(self._unfinished))
        except Error as error:
            if not self._failing:
                logger.error("No sign of life could be given; trying on: %s", error)
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
        """Those of the dead, and those of this process that it knows nothing of: their end could not be stored."""
        of_dead, own = unfinished
        if lost := [*of_dead, *(generation for generation in own if not self._runs(generation))]:
            ended = await self._run(self._interrupt, lost)
            if ended:
                logger.warning("%d answers were interrupted: nobody writes them any more", len(ended))
            for visitor, conversation in ended:
                if conversation is not None:
                    self._ended(visitor, conversation)

    def _give_sign(self) -> None:
        row = Process.objects.filter(pk=self._owner)
        before = row.values_list("beaten", flat=True).first()
        if not row.update(beaten=Now()):
            Process.objects.create(pk=self._owner, beaten=Now())
        now: datetime = row.values_list("beaten", flat=True).get()
        if self._sound_since is None or before is None or now - before > DEAD / 2:
            self._sound_since = now
        self._sure = now - self._sound_since >= DEAD

    def _unfinished(self) -> tuple[list[UUID], list[UUID]]:
        """Living generations of the dead, and of this process."""
        living = Generation.objects.filter(state__in=Generation.LIVE)
        own = list(living.filter(owner=self._owner).values_list("pk", flat=True))
        if not self._sure:
            return [], own
        Process.objects.filter(beaten__lt=Now() - FORGOTTEN).delete()
        alive = Process.objects.filter(beaten__gt=Now() - DEAD)
        return list(living.exclude(owner__in=alive.values("pk")).values_list("pk", flat=True)), own

    def _interrupt(self, lost: Iterable[UUID]) -> list[tuple[UUID, UUID | None]]:
        with transaction.atomic():
            living: QuerySet[Generation] = Generation.objects.filter(pk__in=lost, state__in=Generation.LIVE)
            # A process that stopped within a transaction may hold some; they wait until the database has ended that.
            rows = list(living.select_for_update(skip_locked=True).values_list("pk", "visitor", "conversation"))
            generations.end(Generation.objects.filter(pk__in=[key for key, _, _ in rows]), INTERRUPTED)
        return [(visitor, conversation) for _, visitor, conversation in rows]

    def _leave(self) -> None:
        Process.objects.filter(pk=self._owner).delete()
        connection.close()

    async def _run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        def guarded() -> R:
            try:
                return function(*args, **kwargs)
            except Error:
                connection.close()  # the next one begins with a new connection
                raise

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)
