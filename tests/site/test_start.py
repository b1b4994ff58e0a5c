"""What happens before a process serves: one process for each `var`, and the ends of what an earlier one left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.test import override_settings

from chat.history.history import History
from chat.models import Generation
from chat.streams.hub import Hub
from chat.turns.registry import Turns
from chatsite import start as start_module
from chatsite.start import AlreadyServing, Starting, start, stop
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
async def turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Turns]:
    turns = Turns(ScriptedController(), History(), Hub())
    monkeypatch.setattr(start_module, "get_turns", lambda: turns)
    monkeypatch.setattr(start_module.llm, "get_controller", lambda: turns.controller)
    with override_settings(CHATSTREAM_VAR=tmp_path):
        yield turns
        await stop()


async def test_the_first_connection_starts_the_site_once() -> None:
    served: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        served.append(scope["path"])

    await History(process=uuid4()).accept(question(a_visitor()))
    site = Starting(app)
    await site({"path": "/a"}, None, None)  # type: ignore[arg-type]
    assert (await Generation.objects.aget()).state == "interrupted"
    await Generation.objects.aupdate(state="running")
    await site({"path": "/b"}, None, None)  # type: ignore[arg-type]
    assert (await Generation.objects.aget()).state == "running"
    assert served == ["/a", "/b"]


async def test_a_second_process_refuses_to_serve_the_same_var(tmp_path: Path) -> None:
    await start()
    with pytest.raises(
        AlreadyServing, match=r"^Process \d+ serves .* Stop it, or give this one its own CHATSTREAM_VAR"
    ):
        start_module._locked(tmp_path / "web.lock")
    await stop()
    await start()


async def test_another_process_cannot_end_the_living_turns_of_this_one(tmp_path: Path, turns: Turns) -> None:
    holder = start_module._locked(tmp_path / "web.lock")
    accepted = await turns.start(question(a_visitor()), SamplingParams(), 0.0)
    with pytest.raises(AlreadyServing):
        await start()
    assert (await Generation.objects.aget(pk=accepted.generation)).state == "queued"
    holder.close()
    await start()
    assert (await Generation.objects.aget(pk=accepted.generation)).state == "queued"
