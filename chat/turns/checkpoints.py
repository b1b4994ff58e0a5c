"""Stores the text so far of all running turns once a second: what a process that dies leaves of its answers.

Turns of one store are stored together, and those of another apart, so that no store's failure keeps another's text from
being stored; nor does a text that its store refuses. Knows a turn as something that has a store and a text and can be
interrupted.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol
from uuid import UUID

from chat.errors import HistoryUnavailable
from chat.history.values import AnswerStore

logger = logging.getLogger(__name__)

EVERY = 1.0
"""Seconds from a text that is not stored yet to the checkpoint that stores it."""


class Running(Protocol):
    """A turn, as far as checkpoints know it."""

    store: AnswerStore
    ending: bool
    """Whether its last row is being written, or is written; no checkpoint is due any more."""

    @property
    def generation(self) -> UUID:
        """The id of its row."""

    @property
    def text(self) -> str:
        """All text up to now."""

    def interrupt(self) -> None:
        """End it as interrupted; nothing happens to one that is ending."""


class Checkpoints:
    """Takes the checkpoints of the turns of this process. Belongs to one event loop."""

    def __init__(self) -> None:
        self._dirty: dict[UUID, Running] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._storing: asyncio.Task[None] | None = None
        self._failing: set[UUID] = set()
        self._refused: set[UUID] = set()
        """Those whose store was there and did not want them: no other one is stored together with them."""

    def mark(self, turn: Running) -> None:
        """Take note that a turn has a text that is not stored yet."""
        self._dirty[turn.generation] = turn
        self._wind_up()

    def drop(self, turn: Running) -> None:
        """Forget a turn: its end is about to be stored, and all of its text with it."""
        self._dirty.pop(turn.generation, None)
        self._failing.discard(turn.generation)
        self._refused.discard(turn.generation)
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
        together: dict[tuple[AnswerStore, UUID | None], list[Running]] = {}
        for turn in turns.values():
            alone = turn.generation if turn.generation in self._refused else None
            together.setdefault((turn.store, alone), []).append(turn)
        try:
            for (store, _), each in together.items():
                await self._checkpoint(store, each)
        finally:
            self._storing = None
            self._wind_up()

    async def _checkpoint(self, store: AnswerStore, turns: list[Running]) -> None:
        """Store the texts of turns of one store; if that fails, they are due again with the next ones.

        If the store is there and does not want them, one of them may be at fault: each is stored alone then.
        """
        texts = {turn.generation: turn.text for turn in turns if not turn.ending}
        try:
            gone = await store.checkpoint(texts) if texts else set()
        except HistoryUnavailable as error:
            self._failed(turns, error.__cause__)
            return
        except Exception as error:  # noqa: BLE001 whatever it was, the turns go on and their ends are still stored
            if len(turns) > 1:
                for turn in turns:
                    await self._checkpoint(store, [turn])
            else:
                self._refused |= texts.keys()
                self._failed(turns, error)
            return
        self._failing -= texts.keys()
        for turn in turns:
            if turn.generation in gone and not turn.ending:
                logger.warning("Generation %s is no longer this process's; it ends here", turn.generation)
                turn.interrupt()

    def _failed(self, turns: list[Running], error: BaseException | None) -> None:
        """Have the turns stored with the next ones; for each it is said once."""
        again = {turn.generation: turn for turn in turns if not turn.ending}
        self._dirty = again | self._dirty
        if not again.keys() <= self._failing:
            logger.error("The text of %d running answers could not be stored; trying on", len(again), exc_info=error)
        self._failing |= again.keys()
