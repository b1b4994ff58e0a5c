"""The benchmark runs and counts what it says; its figures are not judged here."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from io import StringIO
from typing import Any

import msgspec
import pytest
import torch
from django.core.management import call_command
from django.core.management.base import CommandError

from llm import conf
from llm.benchmark import load, options, plan, quality
from llm.benchmark.chat import Chat, Chats
from llm.benchmark.options import KINDS, Options
from llm.benchmark.report import Report, shown
from llm.benchmark.target import LocalTarget, ServerTarget
from llm.conf import Settings
from llm.engine import verify
from llm.errors import ConfigurationError, RequestError
from tests.llm.models import tiny

TINY = Settings(model="python:tests.llm.models.endless_chat", device="cpu", max_new_tokens=100)
FEW = Options(chats=(1, 3), contexts=(20,), histories=(0, 30), tokens=4)


class Scripted(Chat):
    """One whose tokens came at given times."""

    def __init__(self, *times: float) -> None:
        super().__init__()
        self.began, self.times = 0.0, list(times)
        self.ends("a reason")

    def cancel(self) -> None:
        pass


async def test_every_kind_of_row() -> None:
    told: list[str] = []
    left: list[int] = []
    found = await plan.measure(TINY, FEW, told.append, left.append)
    rows = {(row.name, *row.of.values()): row.values for row in found.rows}
    assert {name for name, *_ in rows} == set(KINDS)
    assert ("throughput", 1, 20) in rows
    values = rows["throughput", 3, 20]
    assert values["tokens_per_second"] == pytest.approx(3 * values["each"])
    assert 0 < values["ttft_p50"] <= values["ttft_p95"]
    assert rows["turns", 30]["prompt_tokens"] > rows["turns", 0]["prompt_tokens"] + 25
    assert rows["gap", 8, 256]["gap_p99"] >= rows["gap", 8, 256]["gap_p50"] > 0
    assert rows["quality", "none"]["perplexity"] > 1
    assert rows["quality", "auto"]["perplexity"] == pytest.approx(rows["quality", "none"]["perplexity"], rel=0.02)
    assert rows["cancel", 10]["seconds"] > 0
    assert rows["start", TINY.model]["seconds"] > 1
    assert rows["memory", "peak"]["mib"] >= rows["memory", "loaded"]["mib"] > 100
    assert left == sorted(left, reverse=True)
    assert {"1 chat at 20 tokens", "3 chats at once at 20 tokens", "cancelling"} <= set(told)
    assert shown(found)


async def test_prompts_have_the_length_they_are_said_to_have() -> None:
    target = LocalTarget(TINY)
    await target.open(lambda _: None)
    async with Chats() as chats:
        for number, context in enumerate((1, 40, 400)):
            assert chats.add(target.chat(number, context)).prompt_tokens == context
        await chats.begun()
    assert all(chat.over for chat in chats)
    await target.close()


async def test_chats_that_there_is_no_memory_for_are_no_row(capfd: pytest.CaptureFixture[str]) -> None:
    """Where more would run than the site would let run, memory would not be what it is there."""
    settings = msgspec.structs.replace(TINY, kv_tokens=1500)
    few = Options(only=("throughput",), chats=(2, 3), contexts=(40,), tokens=4)
    found = await plan.measure(settings, few, lambda _: None, lambda _: None)
    assert [row.of["chats"] for row in found.rows] == [2]
    assert "3 chats at once at 40 tokens: 1024 of 1500 token places are taken" in capfd.readouterr().err


def test_tokens_are_counted_while_all_are_in_decode() -> None:
    """Two chats, one a second late: of 4 + 4 tokens those count that fall between the late start and the early end."""
    chats = Chats()
    chats.add(Scripted(0, 1, 2, 3))
    chats.add(Scripted(1, 2, 3, 4))
    assert chats.rate == 2.0
    chats.add(Scripted(5, 6))
    with pytest.raises(RequestError, match="at the same time"):
        assert chats.rate


async def test_a_chat_without_an_answer_says_why() -> None:
    chats = Chats()
    chats.add(Scripted())
    with pytest.raises(RequestError, match="a reason"):
        await chats.begun()


def test_gaps() -> None:
    """Those that end in the time looked at, and the wait that is not over by then."""
    assert load.gaps([Scripted(0, 1, 3, 4, 9)], 2, 6) == [2, 1, 2]


def test_perplexity_is_that_of_the_model() -> None:
    model = tiny()
    tokens = [7 * i % 300 for i in range(600)]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, :-1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:])).exp().item()
    assert quality.perplexity(verify.packed(model), tokens) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("as_json", [True, False])
def test_command(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(conf, "_configured", TINY)
    call_command("benchmark", "--quick", "--chats", "1", "2", "--tokens", "4", *(["--json"] if as_json else []))
    if as_json:
        found = msgspec.convert(json.loads(out.getvalue()), Report)
        assert found.mode.startswith("packed batching, cpu, float32")
    else:
        assert "tok/s each" in out.getvalue()


def test_options() -> None:
    assert options.of({"quick": False, "chats": None}) == Options()
    assert options.of({"quick": True, "only": ["gap"], "chats": [2]}) == msgspec.structs.replace(
        options.QUICK, only=("gap",), chats=(2,)
    )
    assert options.of({"url": "http://x/v1", "only": ["gap", "start"]}).kinds == ("gap",)
    with pytest.raises(ConfigurationError, match="1 or more"):
        options.of({"chats": [0]})


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conf, "_configured", msgspec.structs.replace(TINY, model="/nowhere"))
    with pytest.raises(CommandError, match="LLM_MODEL=/nowhere: there is no such directory"):
        call_command("benchmark", "--quick")


# A server

Serve = Callable[..., Awaitable[str]]
MODELS = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()


def event(text: str | None = None, **usage: int) -> bytes:
    choices: list[Any] = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    if usage:
        chunk["usage"] = {"total_tokens": 0, **usage}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A server that answers each question with the same events, and then as if it had more to say."""
    servers: list[asyncio.Server] = []
    gone = asyncio.Event()

    async def start(events: list[bytes], models: bytes = MODELS, kind: bytes = b"application/json") -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                head = b"HTTP/1.1 200 OK\r\nContent-Type: " + kind
                writer.write(head + b"\r\nConnection: close\r\n\r\n" + models)
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                for each in events:
                    writer.write(each)
                    await writer.drain()
                if events and events[-1] != b"data: [DONE]\n\n":
                    await gone.wait()
            writer.close()

        servers.append(await asyncio.start_server(answer, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/v1"

    yield start
    gone.set()
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")


async def test_a_server(serve: Serve) -> None:
    usage = event(prompt_tokens=12, completion_tokens=4)
    target = ServerTarget(await serve([event("He"), event("llo"), usage, b"data: [DONE]\n\n"]), "")
    await target.open(lambda _: None)
    async with Chats() as chats:
        chat = chats.add(target.chat(0, 10))
        await chat.ended()
    assert (target.name, chat.text, chat.prompt_tokens, len(chat.times)) == ("m", "Hello", 12, 4)
    await target.close()


async def test_leaving_a_server(serve: Serve) -> None:
    target = ServerTarget(await serve([event("He")]), "m")
    await target.open(lambda _: None)
    async with Chats() as chats:
        chats.add(target.chat(0, 10))
        chats.add(target.chat(1, 10))
        await chats.begun()
    late = target.chat(2, 10)
    late.cancel()
    await late.ended()
    assert late.times == []
    await target.close()


async def test_nobody_there() -> None:
    target = ServerTarget("http://127.0.0.1:9/v1", "")
    with pytest.raises(ConfigurationError, match="--url http://127.0.0.1:9/v1"):
        await target.open(lambda _: None)
    await target.close()


@pytest.mark.parametrize(
    ("models", "kind", "line"),
    [
        (b"<html></html>", b"text/html", "is of no use"),
        (b"{{{", b"application/json", "is of no use"),
        (b"[]", b"application/json", "is of no use"),
        (b"{}", b"application/json", "it lists no models"),
        (b'{"data": []}', b"application/json", "it lists no models"),
    ],
)
async def test_a_server_of_another_kind_is_one_line(serve: Serve, models: bytes, kind: bytes, line: str) -> None:
    url = await serve([], models, kind)
    with pytest.raises(ConfigurationError, match=f"--url {url}: {line}") as caught:
        await plan.measure(TINY, Options(url=url), lambda _: None, lambda _: None)
    assert "\n" not in str(caught.value)


async def test_an_address_that_is_none_is_one_line() -> None:
    with pytest.raises(ConfigurationError, match="--url http://"):
        await plan.measure(TINY, Options(url="http://[::1"), lambda _: None, lambda _: None)


async def test_without_a_key_a_server_is_one_line(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        await plan.measure(TINY, Options(url=await serve([])), lambda _: None, lambda _: None)


FAILURE = b'data: {"error": {"message": "no memory left"}}\n\n'


@pytest.mark.parametrize("end", [FAILURE, b"data: {nonsense\n\n"], ids=["an error", "nonsense"])
async def test_an_answer_that_fails_halfway_is_no_measurement(serve: Serve, end: bytes) -> None:
    """Tokens came, and their rate would look like any other."""
    target = ServerTarget(await serve([event("a"), event("b"), event("c"), end]), "m")
    await target.open(lambda _: None)
    for measured in (load.throughput(target, 2, 10, 8), load.turns(target, 0), load.gap(target)):
        with pytest.raises(RequestError, match="a chat failed after . tokens"):
            await measured
    await target.close()
