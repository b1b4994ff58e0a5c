"""Tells systemd that a process is up, that it lives, and that it ends (sd_notify(3): one datagram each).

Without systemd nothing happens. Of the work a watchdog knows only whether there is any and whether it moves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Protocol

log = logging.getLogger(__name__)

LOADING_SECONDS = 60
"""Seconds for which more time to start is asked while the model loads, over and over as long as the loop turns."""


def notify(state: str) -> None:
    """Tell systemd, if it started this process; `state` as in sd_notify(3): "READY=1", "STOPPING=1"."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)  # who does not listen must not hold up the loop
            sender.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError:
        log.warning("systemd could not be told %s", state, exc_info=True)


def watchdog_seconds() -> float | None:
    """Return the seconds of silence after which systemd ends this process (`WatchdogSec`), None if it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or None


class Work(Protocol):
    """The work that a watchdog observes: in the service it is the controller."""

    @property
    def loaded(self) -> bool:
        """True when the work can begin."""

    @property
    def moves(self) -> int | None:
        """A count that changes with every step, however little comes of it; None while there is nothing to do."""

    @property
    def stall_seconds(self) -> float:
        """Seconds that one step may take."""


class Watchdog:
    """Says READY when the work can begin, and WATCHDOG from then on, as long as the loop turns and the work moves.

    Work that has stood still for longer than a step may take gets no further sign of life, so that systemd ends the
    process; work that moves again in time gets on.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._period = (watchdog_seconds() or 2 * LOADING_SECONDS) / 4
        self._ready = False
        self._moves: int | None = None
        self._moved_at = 0.0

    async def run(self) -> None:
        """Report until the task is cancelled."""
        while True:
            self._look(asyncio.get_running_loop().time())
            await asyncio.sleep(self._period if self._ready else min(self._period, 1.0))

    def _look(self, now: float) -> None:
        if not self._ready:
            self._ready = self._work.loaded
            notify("READY=1" if self._ready else f"EXTEND_TIMEOUT_USEC={LOADING_SECONDS * 1_000_000}")
        moves = self._work.moves
        if moves is None or moves != self._moves:
            self._moves, self._moved_at = moves, now
        if self._ready and now - self._moved_at < self._work.stall_seconds:
            notify("WATCHDOG=1")
