"""Where a service listens: nothing that is there is taken from anybody, but the socket of one that died."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llm.service import sockets
from llm.service.address import Address
from tests.server import ROOT


async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"here")
    writer.close()


async def says(address: Address) -> bytes:
    reader, writer = await address.connect()
    try:
        return await reader.read()
    finally:
        writer.close()


def left_by_the_dead(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()


async def test_the_socket_of_a_dead_process_is_replaced_and_goes_at_the_end(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "llm.sock")
    assert address.path is not None
    left_by_the_dead(address.path)
    async with address.listen(accept):
        assert address.path.stat().st_mode & 0o077 == 0
        assert await says(address) == b"here"
    assert not address.path.exists()


async def test_a_living_socket_stays(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "llm.sock")
    async with address.listen(accept):
        with pytest.raises(OSError, match="llm.sock: another process listens there"):
            async with address.listen(accept):
                pass
        assert await says(address) == b"here"


async def test_a_living_socket_whose_queue_is_full_stays(tmp_path: Path) -> None:
    """Nobody can connect to it just now."""
    path = tmp_path / "llm.sock"
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as first:
        listening.bind(str(path))
        listening.listen(0)
        first.connect(str(path))
        with pytest.raises(OSError, match="another process listens there"):
            async with Address(path=path).listen(accept):
                pass
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link to a file", "link to nothing"])
async def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    path, file = tmp_path / "notes", tmp_path / "file"
    file.write_text("dear diary")
    match kind:
        case "file":
            path.write_text("dear diary")
        case "folder":
            path.mkdir()
        case "link to a file":
            path.symlink_to(file)
        case _:
            path.symlink_to(tmp_path / "nothing")
    before = path.lstat()
    with pytest.raises(OSError, match="notes is no socket"):
        async with Address(path=path).listen(accept):
            pass
    assert path.lstat() == before


async def test_of_two_that_begin_at_once_one_does(tmp_path: Path) -> None:
    address = Address(path=tmp_path / "llm.sock")
    assert address.path is not None
    left_by_the_dead(address.path)
    listens, failed = [], []
    start, decided, done = threading.Barrier(8), threading.Semaphore(0), threading.Event()

    async def listen() -> None:
        start.wait()
        try:
            async with address.listen(accept):
                listens.append(1)
                decided.release()
                await asyncio.to_thread(done.wait)
        except OSError as error:
            failed.append(error)
            decided.release()

    threads = [threading.Thread(target=lambda: asyncio.run(listen())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in threads:
        await asyncio.to_thread(decided.acquire)
    assert await says(address) == b"here"
    done.set()
    for thread in threads:
        thread.join()
    assert (len(listens), len(failed)) == (1, 7)


def test_a_socket_listens_as_soon_as_it_is_there(tmp_path: Path) -> None:
    """Who looks between that and its first reader would take it for a dead one, and replace it."""
    path = tmp_path / "llm.sock"
    with sockets.bound(path), pytest.raises(OSError, match="another process listens there"):
        sockets.bound(path)


@pytest.mark.parametrize("name", ["x" * 200, "there/is/no/such/folder"], ids=["too long", "no folder"])
async def test_what_fails_leaves_the_process_as_it_was(tmp_path: Path, name: str) -> None:
    before = os.umask(0o022)
    try:
        with pytest.raises(OSError, match="."):
            async with Address(path=tmp_path / name).listen(accept):
                pass
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_the_command_says_so_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_text("dear diary")
    command = [sys.executable, "manage.py", "llm_service", "--listen", f"unix:{path}"]
    environment = os.environ | {"CHATSTREAM_VAR": str(tmp_path), "LLM_BACKEND": "synthetic"}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == os.EX_CONFIG
    assert said.stderr.splitlines() == [f"Cannot start: {path} is no socket, and stays as it is; give another path"]
    assert path.read_text() == "dear diary"
