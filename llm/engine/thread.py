"""Runs the engine in a thread of its own: requests go in, text comes out, one batch a step.

The thread alone touches the engine and the text streams. Callers belong to one asyncio loop: they hand in a
`Generation`, and its `on_update` is called on that loop, at most once a step, and once with a `finish`, on whatever
path it ends. Without work the thread blocks. What fails for one generation ends that one; what fails in the thread's
own work ends the thread, and its owner is told. The module knows no prompts and no queue of waiting requests.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, Protocol

import torch

from llm.detokenizer import TextStream
from llm.engine.sequence import Sequence
from llm.engine.step import FAILED, Result
from llm.events import FinishReason

logger = logging.getLogger(__name__)


class Steps(Protocol):
    """An engine: `step.Engine`, or `alone.Alone`."""

    @property
    def busy(self) -> bool: ...

    def add(self, sequence: Sequence) -> None:
        """Take a sequence. An exception concerns this sequence only."""

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, whatever it is doing. Idempotent."""

    def clear(self) -> None: ...

    def step(self) -> list[Result]:
        """Compute one step. An exception concerns every sequence: call `clear()` then."""


class Update(NamedTuple):
    """Further text (perhaps none) of so many tokens; with `finish` it is the last one."""

    text: str
    tokens: int
    finish: FinishReason | None = None
    message: str | None = None


class Generation:
    """One sequence, its text, and the callback that is told of it."""

    def __init__(self, sequence: Sequence, text: TextStream, on_update: Callable[[Update], None]) -> None:
        self.sequence = sequence
        self.text = text
        self.on_update = on_update


Command = tuple[Literal["start", "cancel"], Generation]


class EngineThread:
    """The engine's thread. It runs from the start; `stop` ends all generations as interrupted and joins the thread.

    `died` is called on the loop if the thread ends by itself, after all generations have had their end.

    A step that takes longer than `stall_seconds` ends the process, its stacks in the log: it hangs in native code, and
    no exception reaches it there. Without `stall_seconds` it may take for ever.
    """

    def __init__(
        self,
        engine: Steps,
        loop: asyncio.AbstractEventLoop,
        *,
        died: Callable[[], None] = lambda: None,
        stall_seconds: float | None = None,
    ) -> None:
        self.steps = 0
        """How many steps were computed, for those who look from other threads whether it goes on."""
        self._engine = engine
        self._loop = loop
        self._died = died
        self._stall_seconds = stall_seconds
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._running: dict[Sequence, Generation] = {}
        self._updates: list[tuple[Generation, Update]] = []
        self._closed = False
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="llm-engine", daemon=True)
        self._thread.start()

    def start(self, generation: Generation) -> None:
        """Start a generation with the next step. Once the thread has ended, the generation ends as interrupted."""
        with self._closing:
            if not self._closed:
                self._commands.put(("start", generation))
                return
        self._loop.call_soon(generation.on_update, Update("", 0, "interrupted"))

    def cancel(self, generation: Generation) -> None:
        """Cancel a generation before the next step. Idempotent, also after the end."""
        self._commands.put(("cancel", generation))

    def stop(self) -> None:
        """End the thread. Blocks for at most a step. Idempotent."""
        self._commands.put(None)
        self._thread.join()

    # What follows runs in the thread

    @torch.inference_mode()
    def _run(self) -> None:
        finish: FinishReason = "error"
        try:
            while self._obey():
                with self._watched():
                    self._step()
                self.steps += 1
                self._deliver()
            finish = "interrupted"
        except Exception:
            if not self._loop.is_closed():  # else nobody is left to be told, and that is all
                logger.exception("The engine's thread ends")
        finally:
            self._close(finish)

    def _obey(self) -> bool:
        """Carry out the commands, waiting for one while there is nothing to compute. Return False on stop."""
        while not self._engine.busy or not self._commands.empty():
            if self._commands.empty():
                self._deliver()
            match self._commands.get():
                case "start", generation:
                    self._begin(generation)
                case "cancel", generation:
                    self._end(generation, "cancelled")
                case None:
                    return False
        return True

    def _begin(self, generation: Generation) -> None:
        self._running[generation.sequence] = generation
        try:
            self._engine.add(generation.sequence)
        except Exception:
            logger.exception("A generation could not start")
            self._end(generation, "error", FAILED)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End the process if the context takes too long.

        The timer is a thread of C: it works with the GIL held. Setting it costs some 50 microseconds.
        """
        if self._stall_seconds is None:
            yield
            return
        faulthandler.dump_traceback_later(self._stall_seconds, exit=True)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _step(self) -> None:
        try:
            results = self._engine.step()
        except torch.AcceleratorError:  # no further step can work in this process
            raise
        except Exception:  # the step is lost for all of them, the thread is not
            logger.exception("A step of the engine failed")
            self._end_all("error")
            return
        for result in results:
            if (generation := self._running.get(result.sequence)) is not None:  # else all have ended meanwhile
                self._take(generation, result)

    def _take(self, generation: Generation, result: Result) -> None:
        text, tokens, finish = "", 0, result.finish
        try:
            if result.token is not None:
                text, tokens = generation.text.push(result.token), 1
            if generation.text.stopped:
                finish = "stop"
        except Exception:
            logger.exception("A token could not be decoded")
            self._end(generation, "error", FAILED)
            return
        if finish is None:
            self._updates.append((generation, Update(text, tokens)))
        else:
            self._end(generation, finish, result.message, text, tokens)

    def _end(
        self, generation: Generation, finish: FinishReason, message: str | None = None, text: str = "", tokens: int = 0
    ) -> None:
        """End a generation: its memory is free when that is told. If it cannot be freed, all others end too."""
        if generation.sequence not in self._running:
            return
        try:
            self._engine.remove(generation.sequence)
        except Exception:
            logger.exception("The memory of a generation could not be freed")
            self._end_all("error")
        else:
            self._note_end(generation, finish, message, text, tokens)

    def _end_all(self, finish: FinishReason) -> None:
        """End all generations, whatever state the engine is in."""
        try:
            self._engine.clear()
        finally:
            for generation in list(self._running.values()):
                self._note_end(generation, finish, FAILED if finish == "error" else None)

    def _note_end(
        self, generation: Generation, finish: FinishReason, message: str | None, text: str = "", tokens: int = 0
    ) -> None:
        """Note the end of a generation that has left the engine; text that was held back goes out."""
        del self._running[generation.sequence]
        try:
            text += generation.text.end()
        except Exception:
            logger.exception("The last text of a generation could not be decoded")
            finish, message = "error", FAILED
        self._updates.append((generation, Update(text, tokens, finish, message)))

    def _deliver(self) -> None:
        if self._updates:
            self._loop.call_soon_threadsafe(_tell, self._updates)
            self._updates = []

    def _close(self, finish: FinishReason) -> None:
        with self._closing:
            self._closed = True
        try:
            while not self._commands.empty():
                command = self._commands.get()
                if command is not None and command[0] == "start":
                    self._running[command[1].sequence] = command[1]
            self._end_all(finish)
        finally:
            if not self._loop.is_closed():
                self._deliver()
                if finish == "error":
                    self._loop.call_soon_threadsafe(self._died)


def _tell(updates: list[tuple[Generation, Update]]) -> None:
    for generation, update in updates:
        try:
            generation.on_update(update)
        except Exception:
            logger.exception("Whoever follows a generation failed to take its text")
