"""Many requests, and many starts and stops, leave no memory, threads or descriptors behind."""

from __future__ import annotations

import asyncio
import gc
import random
from pathlib import Path

import psutil
import pytest

from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.engine.linear import products, quantize
from llm.sampling import SamplingParams
from tests.llm.backends.test_local import ENDLESS, Answer, asked, ignore

KV_TOKENS = 4000
SLACK = 24 << 20


def held() -> tuple[int, int, int]:
    """Resident bytes, threads, descriptors of this process."""
    gc.collect()
    process = psutil.Process()
    return process.memory_info().rss, process.num_threads(), process.num_fds()


@pytest.fixture(params=["float32", "float32 prepacked"], autouse=True)
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever it is here; the latter prepares something for each new number of tokens."""
    way = products.way(request.param)
    monkeypatch.setattr(quantize, "fastest_first", lambda linears, **_: {each.weight.shape: [way] for each in linears})


async def loaded(var: Path) -> LocalBackend:
    settings = Settings(model=ENDLESS, device="cpu", max_new_tokens=100, kv_tokens=KV_TOKENS, var=str(var))
    backend = LocalBackend(settings)
    await backend.load(ignore)
    return backend


async def requests(backend: LocalBackend, count: int, chance: random.Random) -> None:
    """Eight at a time, short and long, in few conversations; every third is cancelled somewhere."""

    async def ask(number: int) -> None:
        words = "word " * chance.choice([1, 3, 10, 40])
        params = SamplingParams(max_new_tokens=chance.choice([1, 5, 20]), temperature=0.0)
        request = asked(words, params=params, conversation=str(number % 20))
        answer = Answer(backend, request)
        if number % 3 == 0:
            await asyncio.sleep(chance.random() / 20)
            answer.job.cancel()
        assert (await answer.end).reason in ("length", "cancelled")

    for first in range(0, count, 8):
        await asyncio.gather(*(ask(first + i) for i in range(min(8, count - first))))


async def many_requests(count: int, var: Path) -> None:
    backend, chance = await loaded(var), random.Random(5)
    await requests(backend, 100, chance)  # until what is kept, buffers and allocators have their size
    before = held()
    await requests(backend, count, chance)
    after = held()
    engine = backend._engine._engine  # type: ignore[union-attr]
    assert engine.allocated_bytes <= KV_TOKENS * engine.cache.layout.token_bytes  # type: ignore[attr-defined]
    await backend.close()
    assert after[0] - before[0] < SLACK
    assert after[1:] == before[1:]


async def many_starts(count: int, var: Path) -> None:
    async def cycle() -> None:
        backend = await loaded(var)
        await requests(backend, 100, random.Random(6))
        await backend.close()

    for _ in range(2):  # until what is kept, also of prepared products, has its size
        await cycle()
    before = held()
    for _ in range(count):
        await cycle()
    after = held()
    assert after[0] - before[0] < SLACK
    assert after[1] <= before[1]
    assert after[2] == before[2]


async def test_requests_leave_nothing_behind(tmp_path: Path) -> None:
    await many_requests(120, tmp_path)


async def test_starts_and_stops_leave_nothing_behind(tmp_path: Path) -> None:
    await many_starts(2, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_a_thousand_requests_leave_nothing_behind(tmp_path: Path) -> None:
    await many_requests(1000, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_twenty_starts_and_stops_leave_nothing_behind(tmp_path: Path) -> None:
    await many_starts(20, tmp_path)
