"""Shows the operator how the model loads: a progress bar in a terminal, a line a stage elsewhere."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from llm.events import Status
from llm.interface import Controller


class LoadingProgress:
    """Follows the controller's status until the model is ready, or cannot be."""

    def __init__(self, controller: Controller, console: Console) -> None:
        self._controller = controller
        self._console = console
        self._changed = asyncio.Event()

    async def wait(self) -> Status:
        """Wait for, and return, the first status that is `ready` or `failed`."""
        stop = self._controller.on_status(lambda status: self._changed.set())
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        try:
            with Progress(
                *columns, console=self._console, transient=True, disable=not self._console.is_terminal
            ) as bar:
                task = bar.add_task("Loading the model", total=None)
                said = ""
                while (status := self._controller.status).state not in ("ready", "failed"):
                    said = self._say(status, said)
                    bar.update(task, description=said, total=1 if status.progress else None, completed=status.progress)
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            stop()
        return status

    def _say(self, status: Status, said: str) -> str:
        now = status.message or "loading the model"
        now = now[:1].upper() + now[1:]
        if now != said and not self._console.is_terminal:
            self._console.print(f"{now} ...")
        return now
