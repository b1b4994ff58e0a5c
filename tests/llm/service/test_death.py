"""A service whose engine has died ends with an error, so that whoever started it starts another."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from llm.conf import Settings
from llm.service import server
from llm.service.address import service_address
from llm.service.server import Service
from tests.llm.scripted import ScriptedBackend


async def test_dead_engine_ends_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that stays, and has no client whose connection could tell of it."""
    backend = ScriptedBackend()
    monkeypatch.setattr(server, "make_backend", lambda _: backend)
    settings = Settings(var=str(tmp_path))
    service = Service(settings, service_address(settings), stays=True)
    ready = asyncio.Event()
    service.controller.on_status(lambda status: ready.set() if status.state == "ready" else None)
    running = asyncio.create_task(service.run(lambda: None))
    await ready.wait()
    backend.die()
    async with asyncio.timeout(10):
        assert await running == os.EX_SOFTWARE
    assert backend.closed
