"""Describes the machine: its processor, the memory this process takes, and how long a start takes on it."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from llm.benchmark.report import Row
from llm.conf import Settings
from llm.errors import ConfigurationError

CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")
READY = "ready"


def cpu() -> tuple[str, list[str]]:
    """Return the processor's name, and the names of its features that matter for speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    values = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name") or platform.machine()
    flags = set(values.get("flags", values.get("features", "")).split())
    return f"{name}, {os.cpu_count()} CPUs", [feature for feature in CPU_FEATURES if feature in flags]


def memory(when: str) -> Row:
    """Measure what this process has in memory now, or the most it had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        now = pages * resource.getpagesize() / 2**20
    except OSError:
        now = float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "linux" else 2**20)
    return Row("memory", {"of": when}, {"mib": peak if when == "peak" else now})


async def start(settings: Settings) -> Row:
    """Measure from nothing to a loaded model, in a fresh process; a model that has to be converted takes longer."""
    return await asyncio.to_thread(_start, settings)


def _start(settings: Settings) -> Row:
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", "from llm.benchmark.machine import load_and_leave; load_and_leave()"],
        input=msgspec.json.encode(settings),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)},
        check=False,
    )
    seconds = time.perf_counter() - began
    said = process.stdout.decode().strip()
    if said != READY:
        raise ConfigurationError(said or "the model's process ended as it started")
    return Row("start", {"model": settings.model}, {"seconds": seconds})


def load_and_leave() -> None:
    """Load the model and leave: what the fresh process does."""
    from llm.backends.local import LocalBackend

    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
    try:
        asyncio.run(LocalBackend(settings).load(lambda *_: None))
    except ConfigurationError as error:
        sys.stdout.write(str(error))
    else:
        sys.stdout.write(READY)
    sys.stdout.flush()
    os._exit(0)  # the end of a process that has torch takes time which is no part of a start
