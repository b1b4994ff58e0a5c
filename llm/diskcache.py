"""Keeps files that can be made again on disk for as long as somebody uses them; those of older code and models go.

The modification time of such a file or folder is the time of its last use. A process that has a file open can read on
when it is deleted, and one that looks for it later makes it again. The module knows nothing of what the files contain.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

LATELY = 24 * 3600.0
"""Seconds. A file used within them may be in use now, by a process that is about to read more of it."""
GOING = ".going"
"""The suffix of a folder that is being deleted, so that nobody finds half of it."""


def keep(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file and give it its name when it is complete, whoever else makes it now. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        write(partial)
        partial.rename(target)
    finally:
        partial.unlink(missing_ok=True)


def used(path: Path) -> None:
    """Mark a file or folder as used now. A folder that this process cannot write is left alone."""
    with suppress(OSError):
        os.utime(path)


def tidy(paths: Iterable[Path], keep: int = 0) -> None:
    """Delete all paths but the `keep` last used ones and those that were used lately."""
    latest_first = sorted(((_last_use(path), path) for path in paths), reverse=True)
    for last_use, path in latest_first[keep:]:
        if last_use + LATELY < time.time():
            _delete(path)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has deleted it
        return 0.0


def _delete(path: Path) -> None:
    try:
        if path.is_dir():
            path = path if path.suffix == GOING else path.rename(path.with_name(path.name + GOING))
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        if path.exists():
            logger.warning("%s is not used any more and cannot be deleted: %s", path, error)
        return
    logger.info("Deleted %s: it was not used any more", path)
