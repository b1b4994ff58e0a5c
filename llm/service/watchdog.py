"""What systemd is told of a process: that it is up, that it lives, that it ends (sd_notify(3): one datagram each).

Without systemd nothing happens. Knows of the work only whether there is any and whether it moves.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import Protocol

log = logging.getLogger(__name__)

LOADING_SECONDS = 60
"""How much more time to start is asked for while the model loads, over and over as long as the loop turns."""


def notify(state: str) -> None:
    """Tell systemd, if it started this process; `state` as in sd_notify(3): "READY=1", "STOPPING=1"."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        try:
            sender.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError:
            log.warning("systemd could not be told %s", state, exc_info=True)


def watchdog_seconds() -> float | None:
    """After how long without a sign of life systemd ends this process (`WatchdogSec`), if it does."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or None


class Work(Protocol):
    """What has to move."""

    @property
    def loaded(self) -> bool:
        """It could work."""

    @property
    def moves(self) -> int | None:
        """A count that changes as work is done; None while there is nothing to do."""


class Watchdog:
    """Says READY when the work can begin, and WATCHDOG from then on, as long as the loop turns and the work moves.

    Work that has stood still for `stall` seconds gets no further sign of life, so that systemd ends the process; one
    that moves again in time gets on.
    """

    def __init__(self, work: Work, stall: float) -> None:
        self._work = work
        self._stall = stall
        self._period = (watchdog_seconds() or 2 * LOADING_SECONDS) / 4
        self._ready = False
        self._moves: int | None = None
        self._moved_at = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
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
        if self._ready and now - self._moved_at < self._stall:
            notify("WATCHDOG=1")
