"""What is measured: our site on the synthetic backend, and a bare Channels consumer under plain daphne."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.server import ROOT, Site, free_port


def many_files() -> None:
    """A thousand sockets are more than the usual limit; the servers started after this have it too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))


@contextmanager
def chat(**environment: object) -> Iterator[tuple[str, psutil.Process]]:
    """Our site: its address and its web process."""
    many_files()
    with tempfile.TemporaryDirectory(prefix="site-") as var:
        site = Site(Path(var), {name: str(value) for name, value in environment.items()})
        site.prepare()
        site.start()
        assert site.process is not None
        try:
            yield site.url, psutil.Process(site.process.pid)
        finally:
            site.stop()


@contextmanager
def bare() -> Iterator[tuple[str, psutil.Process]]:
    """`tests.load.bare`: its address and its process."""
    many_files()
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-v", "0", "-p", str(port), "tests.load.bare:application"]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + 30
            while not _listens(port):
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def cpu(process: psutil.Process) -> float:
    """Seconds it has used."""
    used = process.cpu_times()
    return float(used.user + used.system)
