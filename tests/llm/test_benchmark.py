"""The benchmark runs and counts what it says; its figures are not judged here."""

from __future__ import annotations

import asyncio
import json
import sys
from io import StringIO

import msgspec
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from llm import benchmark, conf
from llm.backends.local import LocalBackend
from llm.benchmark import Chat, chat_round
from llm.conf import Settings

TINY = Settings(model="python:tests.llm.models.endless_chat", device="cpu", max_new_tokens=400)


async def test_report() -> None:
    told: list[str] = []
    found = await benchmark.measure(TINY, [1, 3], 5, told.append)
    assert [one.chats for one in found.rounds] == [1, 3]
    for one in found.rounds:
        assert one.tokens_per_second == pytest.approx(one.chats * one.tokens_per_second_each)
        assert 0 < one.ttft_p50 <= one.ttft_p95
    assert found.cancel_to_free > 0
    assert {"1 chat", "3 chats at once", "cancelling"} <= set(told)


async def test_tokens_are_counted_while_all_are_in_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chats, one a second late: of 4 + 4 tokens those count that fall between the late start and the early end."""

    class Scripted(Chat):
        def __init__(self, _: LocalBackend, number: int, tokens: int) -> None:
            self.prompt_tokens, self.began = 40, 0.0
            self.times = [float(number + i) for i in range(4)]
            self.ended = asyncio.Event()
            self.ended.set()

    monkeypatch.setattr(benchmark, "Chat", Scripted)
    found = await chat_round(LocalBackend(TINY), 2, 4)
    assert (found.tokens_per_second, found.tokens_per_second_each) == (2.0, 1.0)
    assert (found.ttft_p50, found.ttft_p95) == (0.5, 1.0)


@pytest.mark.parametrize("as_json", [True, False])
def test_command(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(conf, "_configured", TINY)
    call_command("benchmark", "--chats", "1", "2", "--tokens", "4", *(["--json"] if as_json else []))
    if as_json:
        found = msgspec.convert(json.loads(out.getvalue()), benchmark.Report)
        assert found.mode == "packed batching, cpu, float32"
    else:
        assert "to one chat" in out.getvalue()


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "_configured", msgspec.structs.replace(TINY, model="/nowhere"))
    with pytest.raises(CommandError, match="LLM_MODEL=/nowhere: there is no such directory"):
        call_command("benchmark")
