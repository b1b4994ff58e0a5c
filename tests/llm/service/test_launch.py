"""The start of a service that does not work out: it is tried again less and less often, and nothing hangs on it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from llm.backends.base import ModelInfo
from llm.conf import Settings
from llm.errors import Unavailable
from llm.events import State, Status
from llm.sampling import DEFAULTS
from llm.service import client as client_module
from llm.service import launch, server, wire
from llm.service.address import service_address
from llm.service.client import ServiceClient
from llm.service.launch import connect_or_start
from tests.llm.scripted import ScriptedBackend
from tests.llm.service.clients import NewClient, answer, becomes, hello, serving
from tests.llm.tokenizers import panic

Program = Callable[[str], Path]

HEAD = f"""#!{sys.executable}
import json, os, socket, sys, time
settings = json.loads(sys.stdin.read())
var = settings["var"]
with open(f"{{var}}/starts", "a") as starts:
    starts.write(f"{{os.getpid()}} {{time.monotonic()}}\\n")
def say(line):
    print(line, flush=True)
def listen():
    listening = socket.socket(socket.AF_UNIX)
    if os.path.exists(f"{{var}}/llm.sock"):
        os.unlink(f"{{var}}/llm.sock")
    listening.bind(f"{{var}}/llm.sock")
    listening.listen()
    say("listening")
    return listening
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Puts a program in the place of `python -m llm.service`: what it does after it has read its settings."""

    def put(text: str) -> Path:
        path = tmp_path / "program"
        path.write_text(HEAD + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    return put


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(backend="synthetic", var=str(tmp_path), stall_seconds=1.0)


def starts(settings: Settings) -> list[tuple[int, float]]:
    """Process and time of every start."""
    try:
        lines = (settings.var_path / "starts").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(int(pid), float(at)) for pid, at in map(str.split, lines)]


def greeting(settings: Settings, state: State, pid: int = 1) -> bytes:
    return wire.encode(wire.Hello(wire.PROTOCOL, settings.fingerprint, pid, 0, "it", DEFAULTS, Status(state=state)))


@pytest.mark.parametrize(
    "dies",
    [
        "sys.exit(1)",
        "listen(); os._exit(1)",
        "connected, _ = listen().accept(); connected.sendall(GREETING); os._exit(1)",
    ],
    ids=["before it listens", "as it is reached", "once it is ready"],
)
async def test_a_service_that_dies_at_once_is_started_less_and_less_often(
    settings: Settings, program: Program, dies: str
) -> None:
    program(dies.replace("GREETING", repr(greeting(settings, "ready"))))
    client = ServiceClient(settings)
    client.connect()
    async with asyncio.timeout(60):
        while len(starts(settings)) < 4:  # noqa: ASYNC110 other processes write it
            await asyncio.sleep(0.05)
    await client.aclose()
    times = [at for _, at in starts(settings)]
    for waited, (before, after) in zip(client_module.BACKOFF, itertools.pairwise(times), strict=False):
        assert after - before >= waited
    assert max(client_module.BACKOFF) >= 20


async def test_one_that_has_served_for_a_while_is_started_at_once(
    client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "STEADY_SECONDS", 0.0)
    monkeypatch.setattr(client_module, "BACKOFF", (0.0, 1000.0))
    one = client()
    for _ in range(3):
        await becomes(one, "ready")
        os.kill((await hello(one._settings)).pid, signal.SIGKILL)
        await becomes(one, "down")


async def test_a_service_that_says_nothing_as_it_starts_is_ended(
    settings: Settings, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("time.sleep(1000)")
    monkeypatch.setattr(launch, "LOADING_PATIENCE", 0.5)
    with pytest.raises(Unavailable, match="did not say within"):
        await connect_or_start(settings)
    ((pid, _),) = starts(settings)
    await asyncio.to_thread(gone, pid)
    with (settings.var_path / "llm.lock").open("w") as lock:  # others may try
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def gone(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(10)


@contextlib.contextmanager
def lock_held(settings: Settings) -> Iterator[None]:
    """Be, within the context, another process that starts the service."""
    with (settings.var_path / "llm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


async def test_a_site_can_be_stopped_while_another_process_starts_the_service(settings: Settings) -> None:
    """A thread that waited for the lock would hold the process."""
    client = ServiceClient(settings)
    with lock_held(settings):
        client.connect()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            await client.aclose()
            await asyncio.get_running_loop().shutdown_default_executor()
    assert starts(settings) == []


async def test_a_service_is_found_though_who_started_it_holds_the_lock(settings: Settings) -> None:
    """That process may have been stopped before it let go of it."""
    client = ServiceClient(settings)
    with lock_held(settings):
        client.connect()
        await asyncio.sleep(0.05)
        async with serving(settings, service_address(settings)):
            await becomes(client, "ready")
            await client.aclose()
    assert starts(settings) == []


async def test_what_waits_for_a_service_hears_that_the_site_is_stopped(settings: Settings) -> None:
    client = ServiceClient(settings)
    with lock_held(settings):
        asked = asyncio.create_task(client.admit("ada"))
        await asyncio.sleep(0.05)
        await client.aclose()
        with pytest.raises(Unavailable, match="stopped"):
            await asked


async def test_a_service_that_does_not_greet_is_ended_and_another_started(
    client: NewClient, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, python = client(), sys.executable
    program("listening = listen(); time.sleep(1000)")
    (_, writer), process = await connect_or_start(one._settings)
    writer.close()
    monkeypatch.setattr(sys, "executable", python)
    monkeypatch.setattr(client_module, "HELLO_SECONDS", 1.0)
    connecting = asyncio.create_task(becomes(one, "ready"))
    assert process is not None
    assert await process.exit_code(within=10) == -signal.SIGKILL
    monkeypatch.setattr(client_module, "HELLO_SECONDS", 60.0)
    await connecting


async def test_who_is_killed_is_who_was_silent(settings: Settings, program: Program) -> None:
    """Not the process that it tells: in a `var` that containers share, that number is somebody else's here."""
    bystander = await asyncio.create_subprocess_exec("sleep", "1000")
    hello = greeting(settings, "ready", pid=bystander.pid)
    program(f"connected, _ = listen().accept(); connected.sendall({hello!r}); time.sleep(1000)")
    one = ServiceClient(settings)
    await becomes(one, "ready")
    await becomes(one, "down")
    await one.aclose()
    await asyncio.to_thread(gone, starts(settings)[0][0])
    assert bystander.returncode is None
    bystander.kill()
    await bystander.wait()


async def test_settings_longer_than_a_pipe_is_deep_are_handed_over(client: NewClient) -> None:
    one = client(system_prompt="x" * 1_000_000)
    await becomes(one, "ready")
    assert (await answer(one, "/echo fine"))[-1].reason == "stop"


async def test_a_callback_that_fails_harms_neither_the_others_nor_the_link(
    client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    one = client()
    one.on_status(lambda status: 1 / 0)  # type: ignore[arg-type, return-value]
    await becomes(one, "ready")
    assert (await answer(one, "/echo fine"))[-1].reason == "stop"
    os.kill((await hello(one._settings)).pid, signal.SIGKILL)
    await becomes(one, "down")
    await becomes(one, "ready")
    assert "Whoever follows the model's status failed to take it" in caplog.text


async def test_a_library_that_panics_as_the_model_loads_ends_the_service(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises is no Exception; a service that goes on would say for ever that it loads."""

    class Panicking(ScriptedBackend):
        async def load(self, *args: object) -> ModelInfo:
            await asyncio.to_thread(panic)
            raise AssertionError("it has panicked")

    monkeypatch.setattr(server, "make_backend", lambda settings: Panicking())
    service = server.Service(settings, service_address(settings), stays=True)
    async with asyncio.timeout(20):
        assert await service.run(lambda: None) == 1


async def test_a_named_service_that_could_not_start_is_looked_for_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever runs it sets it right and starts it again, and the site has it back."""
    address = service_address(settings)
    client = ServiceClient(msgspec.structs.replace(settings, service=str(address)))
    with monkeypatch.context() as broken:
        backend = ScriptedBackend("LLM_MODEL=x: no such model")
        broken.setattr(server, "make_backend", lambda settings: backend)
        service = server.Service(settings, address, stays=True)
        release, load = asyncio.Event(), backend.load

        async def loaded(*given: Any) -> ModelInfo:
            await release.wait()
            return await load(*given)

        broken.setattr(backend, "load", loaded)
        running = asyncio.create_task(service.run(client.connect))
        while not service._connections:  # noqa: ASYNC110 it has no event for it
            await asyncio.sleep(0.01)
        release.set()
        assert await running == os.EX_CONFIG
    await becomes(client, "down")
    assert "cannot start: LLM_MODEL=x: no such model" in caplog.text
    async with serving(settings, address):
        await becomes(client, "ready")
        await client.aclose()


async def test_a_site_without_a_standard_error_has_its_service(client: NewClient, tmp_path: Path) -> None:
    """Daemons of the old kind close it."""
    program = (
        "import asyncio, sys\n"
        "from llm.conf import Settings\n"
        "from llm.service.client import ServiceClient\n"
        "async def main():\n"
        "    client = ServiceClient(Settings(backend='synthetic', var=sys.argv[1], synthetic_rate=200.0))\n"
        "    (await client.admit('ada')).cancel()\n"
        "    print('in', flush=True)\n"
        "    await client.aclose()\n"
        "asyncio.run(main())\n"
    )
    closed = ("sh", "-c", 'exec "$@" 2>&-', "sh")
    process = await asyncio.create_subprocess_exec(*closed, sys.executable, "-c", program, str(tmp_path), stdout=-1)
    assert await process.communicate() == (b"in\n", None)
    await becomes(client(), "ready")  # which ends the service too
