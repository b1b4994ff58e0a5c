"""Keeps what is known of the model, and tells changes of its status to subscribers."""

from __future__ import annotations

import logging
from collections.abc import Callable

from llm.events import Status
from llm.sampling import SamplingParams

logger = logging.getLogger(__name__)

Progress = Callable[[str, float | None], None]
"""progress(what is being done, 0 to 1 or None): tells how a model loads; may be called from any thread."""


class ModelStatus:
    """Base of the controller and its client. Callbacks are called on the loop that sets the status, in their order."""

    def __init__(self) -> None:
        self.status = Status(state="loading")
        self.model = ""
        self.defaults = SamplingParams()
        self._callbacks: list[Callable[[Status], None]] = []

    def on_status(self, callback: Callable[[Status], None]) -> Callable[[], None]:
        """Subscribe `callback`. Return a function that ends the subscription and may be called twice."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback) if callback in self._callbacks else None

    def _set_status(self, status: Status) -> None:
        """Set the status and call the callbacks. Does nothing if the status is unchanged.

        A callback that fails is logged: neither the other ones nor whoever sets the status are concerned.
        """
        if status == self.status:
            return
        self.status = status
        for callback in tuple(self._callbacks):
            try:
                callback(status)
            except Exception:
                logger.exception("Whoever follows the model's status failed to take it")
