"""The watchdog tells systemd what it should, over a real datagram socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm.service.watchdog import Watchdog, notify
from tests.server import ROOT, Serve


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end; `getsockname()` is NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(20)
        yield receiver


def heard(systemd: socket.socket) -> str:
    return systemd.recv(100).decode()


def hear(systemd: socket.socket, state: str) -> None:
    while heard(systemd) != state:
        pass


def hear_to_the_end(systemd: socket.socket) -> None:
    """Raises TimeoutError when nothing was said for a while."""
    while True:
        heard(systemd)


def forget(systemd: socket.socket) -> None:
    """What was said up to now."""
    systemd.setblocking(False)
    try:
        while True:
            heard(systemd)
    except BlockingIOError:
        systemd.settimeout(20)


class Engine:
    """Work under a test's control."""

    loaded = False
    moves: int | None = None
    stall_seconds = 0.1


@pytest.mark.parametrize("abstract", [False, True])
def test_a_state_is_one_datagram(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, abstract: bool) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("" if abstract else str(tmp_path / "notify"))  # the system names an abstract one
        name = receiver.getsockname()
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name[1:].decode()}" if abstract else name)
        notify("READY=1")
        assert receiver.recv(100) == b"READY=1"


def test_without_systemd_and_with_a_dead_one_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    assert not caplog.text
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notify("READY=1")
    assert "could not be told" in caplog.text


async def test_signs_of_life_come_only_while_the_work_moves(
    monkeypatch: pytest.MonkeyPatch, systemd: socket.socket
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", systemd.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    engine = Engine()
    running = asyncio.create_task(Watchdog(engine).run())
    try:
        assert (await asyncio.to_thread(heard, systemd)).startswith("EXTEND_TIMEOUT_USEC=")
        engine.loaded = True
        await asyncio.to_thread(hear, systemd, "READY=1")
        await asyncio.to_thread(hear, systemd, "WATCHDOG=1")  # nothing to do is no standstill
        engine.moves = 7
        systemd.settimeout(0.3)  # three times the stall
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(hear_to_the_end, systemd)
        systemd.settimeout(20)
        engine.moves = 8
        await asyncio.to_thread(hear, systemd, "WATCHDOG=1")
    finally:
        running.cancel()


def test_the_service_that_stays_is_a_unit(systemd: socket.socket, tmp_path: Path) -> None:
    environment = os.environ | {
        "CHATSTREAM_VAR": str(tmp_path),
        "LLM_BACKEND": "synthetic",
        "NOTIFY_SOCKET": systemd.getsockname(),
        "WATCHDOG_USEC": "400000",
    }
    command = [sys.executable, "manage.py", "llm_service", "--listen", f"unix:{tmp_path}/llm.sock"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            hear(systemd, "READY=1")
            for _ in range(3):
                hear(systemd, "WATCHDOG=1")
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            forget(systemd)
            systemd.settimeout(1)
            with pytest.raises(TimeoutError):
                heard(systemd)
            systemd.settimeout(20)
            process.send_signal(signal.SIGCONT)
            hear(systemd, "WATCHDOG=1")
            process.terminate()
            hear(systemd, "STOPPING=1")
            assert process.wait(15) == 0
        finally:
            process.kill()


def test_the_site_says_when_it_is_ready_and_when_it_ends_and_its_own_service_says_nothing(
    serve: Serve, systemd: socket.socket
) -> None:
    site = serve(NOTIFY_SOCKET=systemd.getsockname(), WATCHDOG_USEC=100_000)
    assert heard(systemd) == "READY=1"
    assert site.stop() == 0
    assert heard(systemd) == "STOPPING=1"
