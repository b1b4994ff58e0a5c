"""Peers of the llm service that say nothing, read nothing, or know no token: they keep nobody out, and nothing up."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm.conf import Settings
from llm.service import connection, server, wire
from llm.service.address import Address, Streams
from llm.service.client import ServiceClient
from tests.llm.scripted import request
from tests.llm.service.clients import answer, becomes, serving
from tests.server import ROOT, free_port


@pytest.fixture
def address(tmp_path: Path) -> Address:
    return Address(path=tmp_path / "llm.sock")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(backend="synthetic", synthetic_rate=200.0, var=str(tmp_path))


@pytest.fixture
def process(address: Address, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A service that stays and listens at `address`."""
    command = [sys.executable, "manage.py", "llm_service", "--listen", str(address)]
    environment = os.environ | {"CHATSTREAM_VAR": str(tmp_path), "LLM_BACKEND": "synthetic"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert str(address) in process.stdout.readline()
        yield process
        process.kill()


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def silent(address: Address) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(20)
    connected.connect(str(address.path))
    return connected


def unread(connected: socket.socket) -> int:
    """Bytes that have arrived."""
    return int.from_bytes(fcntl.ioctl(connected, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_sigterm_ends_it_whatever_peers_do(address: Address, process: subprocess.Popen[str]) -> None:
    with silent(address), silent(address) as deaf:
        deaf.sendall(wire.encode(wire.Login("")) + wire.encode(wire.GetStats(1)) * 10_000)
        deadline = time.monotonic() + 20
        while unread(deaf) < 20_000:  # with what the system keeps beside it that is all it can hold
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


async def test_sigterm_ends_it_in_the_middle_of_answers(address: Address, process: subprocess.Popen[str]) -> None:
    client = ServiceClient(Settings(service=str(address)))
    await becomes(client, "ready")
    stream = (await client.admit("ada")).run(request())
    await anext(stream)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, 10) == 0
    await client.aclose()


async def test_who_reads_nothing_is_cut_off_before_it_fills_the_memory(
    settings: Settings, address: Address, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "MAX_UNREAD", 100_000)
    async with serving(settings, address):
        reader, writer = await address.connect()
        writer.write(wire.encode(wire.Login("")) + wire.encode(wire.GetStats(1)) * 10_000)
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(wire.encode(wire.GetStats(1)))
                await writer.drain()
                await asyncio.sleep(0)
        assert "reads nothing any more" in caplog.text


async def test_who_says_nothing_is_cut_off(
    settings: Settings, address: Address, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "LOGIN_SECONDS", 0.1)
    async with serving(settings, address):
        reader, writer = await address.connect()
        assert await reader.read() == b""
        writer.close()
    assert "was not let in: it said nothing for 0 s" in caplog.text


@pytest.mark.parametrize(
    "sent",
    [
        (wire.MAX_LOGIN + 1).to_bytes(4, "big"),
        framed(b"\x82\xa4type\xa5Login\xa1x" + b"\x91" * 50_000 + b"\xc0"),
        framed(b"\xc1"),
    ],
    ids=["large", "deep", "no MessagePack"],
)
async def test_a_first_frame_that_is_no_login_is_a_line_in_the_log(
    settings: Settings, address: Address, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with serving(settings, address):
        reader, writer = await address.connect()
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
    assert "was not let in: it sent what is no login" in caplog.text
    assert "Traceback" not in caplog.text


async def test_however_many_say_nothing_who_logs_in_is_heard(settings: Settings, address: Address) -> None:
    async with serving(settings, address):
        strangers: list[Streams] = [await address.connect() for _ in range(server.MAX_STRANGERS + 5)]
        client = ServiceClient(Settings(service=str(address)))
        await becomes(client, "ready")
        assert (await answer(client, "/echo fine"))[-1].reason == "stop"
        for reader, _ in strangers[:5]:
            assert await reader.read() == b""
        assert not strangers[-1][0].at_eof()
        await client.aclose()
        for _, writer in strangers:
            writer.close()


async def test_a_wrong_token_is_a_line_in_the_log(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    address = Address(host="127.0.0.1", port=free_port())
    async with serving(settings, address):
        client = ServiceClient(Settings(service=str(address), service_token="guess"))
        status = await becomes(client, "down")
        await client.aclose()
    assert "A client at ('127.0.0.1'" in caplog.text
    assert "was not let in: it does not know the token" in caplog.text
    assert caplog.text.count("was not let in") == 1
    assert status.message is not None
    assert "LLM_SERVICE_TOKEN" in status.message


async def test_peers_that_vanish_are_noticed_at_both_ends() -> None:
    """A machine that lost its power says nothing: the system has to ask."""
    address = Address(host="127.0.0.1", port=free_port())
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))

    async with address.listen(accept):
        ends = [await address.connect(), await accepted]
        for _, writer in ends:
            connected = writer.get_extra_info("socket")
            assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            idle, every, count = (
                connected.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + every * count <= 120
            assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000
            writer.close()
