"""Keeps the model's status and tells its changes to subscribers."""

from __future__ import annotations

from collections.abc import Callable

from llm.events import Status


class StatusBoard:
    """The status of a controller or a client. It calls callbacks on the loop that sets it, in the order they came."""

    def __init__(self) -> None:
        self.status = Status(state="loading")
        self._callbacks: list[Callable[[Status], None]] = []

    def on_change(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        """Subscribe `callback`. Return a function that ends the subscription and may be called twice."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def set(self, status: Status) -> None:
        """Set the status and call the callbacks. Does nothing if the status is unchanged."""
        if status == self.status:
            return
        self.status = status
        for callback in tuple(self._callbacks):
            callback(status)
