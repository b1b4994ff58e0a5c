"""Asks the system what asyncio does not: who is at the other end of a socket, whether it is gone, who listens where."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

KEEPALIVE_SECONDS = 30
TOLD_ONLY = not hasattr(socket, "SO_PEERCRED")
"""True where the system does not say who is at the other end (macOS), so that what a peer tells of itself has to do."""


def bound(path: Path) -> socket.socket:
    """Return a unix socket that listens at `path`, which only its owner may use.

    One that a dead process of the same user left there is replaced; anything else stays. Raises OSError, whose text is
    one line.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_in(path.parent):
            _remove_dead(path)
            mask = os.umask(0o077)
            try:
                made.bind(os.fspath(path))
            finally:
                os.umask(mask)
            made.listen()  # before another one looks: what is bound and does not listen is taken for dead
    except BaseException:
        made.close()
        raise
    return made


def notice_lost_peers(connected: socket.socket) -> None:
    """Have the system end a TCP connection whose other end has vanished without a word, within some two minutes."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {
        "TCP_KEEPIDLE": KEEPALIVE_SECONDS,
        "TCP_KEEPINTVL": KEEPALIVE_SECONDS,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 4 * KEEPALIVE_SECONDS * 1000,  # while something is unsent there are no probes
    }.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has them all
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


def peer_pid(connected: socket.socket) -> int:
    """Return the process that listens at the other end; 0 if it is not among those that can be seen from here.

    That is so behind TCP, and in another container: the number that it would tell is somebody else's here.
    """
    if TOLD_ONLY or connected.family != socket.AF_UNIX:
        return 0
    pid, _, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(pid)


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep others that are about to listen out of `folder` within the context; of two that look one may go unseen."""
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another process is about to listen in {folder}") from None
        yield
    finally:
        os.close(held)


def _remove_dead(path: Path) -> None:
    """Remove the socket that a process of this user left as it died. Raises OSError if anything else is at `path`."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(f"{path} is no socket, and stays as it is; give another path")
    if found.st_uid != os.getuid():
        raise OSError(f"{path} is the socket of another user; give another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)  # one whose line of callers is full lives
        if asking.connect_ex(os.fspath(path)) != errno.ECONNREFUSED:
            raise OSError(f"{path}: another process listens there")
    path.unlink()
