"""Finds out how much memory is free on the machine, in its container, or on the accelerator, and says when it lacks."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from llm.errors import ConfigurationError, one_line

CGROUP = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 1 << 62
GIB = 1 << 30
WAIT_SECONDS = 10.0
"""Seconds in which an earlier process may still give back what it had."""
LACKING = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""How libraries put it that raise a RuntimeError or an OSError for want of memory."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be allocated now without pushing anything out."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(available_memory(), container_memory())


def available_memory() -> int:
    """Return the bytes that the kernel believes are available; if it does not say (macOS), half of all memory."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    values = dict(line.split(":") for line in lines)
    return int(values["MemAvailable"].split()[0]) * 1024


def container_memory(cgroup: Path = CGROUP, own: Path = OWN) -> int:
    """Return what the control groups of this process leave, the tightest of them; a huge number without a limit.

    A group holds its processes to its limit, and so does each one around it. What the kernel would drop for whoever
    asks, files that were read, counts as free.
    """
    return min((_left(group) for group in _groups(cgroup, own)), default=UNLIMITED)


def _groups(cgroup: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups with memory, the outer ones too, of version 2 and of version 1.

    In a container they are named as outside, or as inside: the root is always among them.
    """
    yield cgroup
    yield cgroup / "memory"
    with suppress(OSError):
        for line in own.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            if kinds == "" or "memory" in kinds.split(","):
                root = cgroup / "memory" if kinds else cgroup
                group = root / path.lstrip("/")
                while group != root:
                    yield group
                    group = group.parent


def _left(group: Path) -> int:
    for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # no such file, or "max"
            return int((group / limit).read_text()) - int((group / used).read_text()) + _droppable(group)
    return UNLIMITED


def _droppable(group: Path) -> int:
    """Return the bytes of files that were read, and of what the kernel remembers of files."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    values = {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
    return sum(
        values.get(f"total_{name}", values.get(name, 0))  # version 1 counts the groups within apart
        for name in ("inactive_file", "active_file", "slab_reclaimable")
    )


def make_sure(label: str, needed: int, numbers: str, device: torch.device) -> None:
    """Wait a moment until `needed` bytes are free on the device. Raises ConfigurationError if they are not."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (free := free_memory(device)) < needed:
        if time.monotonic() >= deadline:
            smaller = " or LLM_DTYPE=bfloat16" if numbers == "float32" else ""
            raise ConfigurationError(
                f"{label}: its weights take {needed / GIB:.1f} GiB in {numbers}, and {max(0, free) / GIB:.1f} GiB of "
                f"memory are free on {device}; give a smaller model{smaller}"
            )
        time.sleep(0.2)


@contextmanager
def lack_told(label: str) -> Iterator[None]:
    """Raise ConfigurationError for whatever a library raises within the context for want of memory."""
    free = min(available_memory(), container_memory())
    try:
        yield
    except Exception as error:
        if not lacks(error):
            raise
        raise ConfigurationError(
            f"{label}: there is not enough memory to run it: {free / GIB:.1f} GiB were free on the machine "
            f"({one_line(error)}); give a smaller model"
        ) from error


def lacks(error: BaseException) -> bool:
    """Return whether an exception says that there is no more memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in LACKING)


def give_back() -> None:
    """Return memory that was freed and is still the allocator's to the system, if there is a call for it (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
