"""The text so far of all running turns, stored together once a second: what a process that dies leaves of its answers.

Knows a turn as something that has a text and can be interrupted, and the history by its contract.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol
from uuid import UUID

from chat.contract import TurnHistory
from chat.records import HistoryUnavailable

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds from a text that is not stored yet to the checkpoint that stores it."""


class Running(Protocol):
    """A turn, as far as its text goes."""

    @property
    def generation(self) -> UUID:
        """Whose text it is."""

    @property
    def text(self) -> str:
        """All of it, up to now."""

    @property
    def ending(self) -> bool:
        """Its last row is being written, or is written; no checkpoint is due any more."""

    def interrupt(self) -> None:
        """End it as interrupted; nothing happens to one that is ending."""


class Checkpoints:
    """Those of the turns of one history in this process. Belongs to one event loop."""

    def __init__(self, history: TurnHistory) -> None:
        self._history = history
        self._dirty: dict[UUID, Running] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._failing = False

    def mark(self, turn: Running) -> None:
        """It has a text that is not stored yet."""
        self._dirty[turn.generation] = turn
        self._wind_up()

    def drop(self, turn: Running) -> None:
        """Its end is about to be stored, and all of its text with it."""
        self._dirty.pop(turn.generation, None)
        if not self._dirty and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def aclose(self) -> None:
        """Store nothing more."""
        self._dirty.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._storing is not None:
            await asyncio.wait([self._storing])

    def _wind_up(self) -> None:
        if self._timer is None and self._storing is None and self._dirty:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._due)

    def _due(self) -> None:
        self._timer = None
        turns, self._dirty = self._dirty, {}
        self._storing = asyncio.create_task(self._store(turns))

    async def _store(self, turns: dict[UUID, Running]) -> None:
        try:
            gone = await self._history.checkpoint({turn.generation: turn.text for turn in turns.values()})
        except HistoryUnavailable as error:
            self._failed(turns, error.__cause__)
        except Exception as error:  # noqa: BLE001 whatever it was, the turns go on and their ends are still stored
            self._failed(turns, error)
        else:
            self._failing = False
            for turn in (turns[generation] for generation in gone):
                if not turn.ending:
                    logger.warning("Generation %s is no longer this process's; it ends here", turn.generation)
                    turn.interrupt()
        finally:
            self._storing = None
            self._wind_up()

    def _failed(self, turns: dict[UUID, Running], error: BaseException | None) -> None:
        """Try again with the next ones; said once."""
        self._dirty = {key: turn for key, turn in (turns | self._dirty).items() if not turn.ending}
        if not self._failing:
            logger.error("The text of %d running answers could not be stored; trying on", len(turns), exc_info=error)
        self._failing = True
