"""The model's status where it is kept, and those who want to hear of its changes."""

from __future__ import annotations

from collections.abc import Callable

from llm.events import Status


class StatusBoard:
    """Callbacks are called on the loop that sets the status, in the order in which they came."""

    def __init__(self) -> None:
        self.status = Status(state="loading")
        self._callbacks: list[Callable[[Status], None]] = []

    def on_change(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        """What comes back ends that; it may be called twice."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def set(self, status: Status) -> None:
        """Nothing happens if it is what it was."""
        if status == self.status:
            return
        self.status = status
        for callback in tuple(self._callbacks):
            callback(status)
