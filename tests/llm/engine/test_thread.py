"""The engine's thread ends each generation once, on every path, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm.detokenizer import TextStream
from llm.engine import verify
from llm.engine.model_runner import PackedModel
from llm.engine.sequence import Sequence
from llm.engine.step import Engine, Result
from llm.engine.thread import EngineThread, Generation, Update
from llm.sampling import SamplingParams
from tests.llm.models import VOCABULARY, tiny
from tests.llm.tokenizers import byte_level

TOKENIZER = byte_level()
ENDLESS = 100_000


class Steps(Engine):
    """An engine that counts its steps, waits where a test says so, and fails when told."""

    def __init__(self, forward: PackedModel) -> None:
        super().__init__(forward, chunk_tokens=8)
        self.count = 0
        self.failure: Exception | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def step(self) -> list[Result]:
        self.count += 1
        self.reached.set()
        self.go_on.wait(10)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return super().step()


class Watched:
    """A generation and what was told of it."""

    def __init__(self, tokens: int = ENDLESS, *, length: int = 5, stop: tuple[str, ...] = (), **options: Any) -> None:
        self.updates: list[Update] = []
        self.first, self.ended = asyncio.Event(), asyncio.Event()
        prompt = options.pop("prompt", [10 + i % 100 for i in range(length)])
        params = SamplingParams(temperature=0.0)
        sequence = Sequence(prompt, params, max_new_tokens=tokens)
        self.generation = Generation(sequence, TextStream(TOKENIZER, stop), self.tell)

    def tell(self, update: Update) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.updates.append(update)
        self.first.set()
        if update.finish is not None:
            self.ended.set()

    @property
    def text(self) -> str:
        return "".join(update.text for update in self.updates)

    @property
    def finish(self) -> str | None:
        (end,) = [update.finish for update in self.updates if update.finish]
        assert self.updates[-1].finish == end
        return end


@pytest.fixture(scope="module")
def forward() -> PackedModel:
    return verify.packed(tiny())


@pytest.fixture
async def engine(forward: PackedModel) -> Steps:
    return Steps(forward)


@pytest.fixture
async def thread(engine: Steps) -> AsyncIterator[EngineThread]:
    thread = EngineThread(engine, asyncio.get_running_loop())
    yield thread
    engine.go_on.set()
    await asyncio.to_thread(thread.stop)
    assert engine.cache.allocated_bytes == 0


async def test_text_of_an_answer(thread: EngineThread, engine: Steps) -> None:
    one = Watched(12)
    thread.start(one.generation)
    await one.ended.wait()
    assert one.text == TOKENIZER.decode(one.generation.sequence.generated).rstrip("\ufffd")
    assert sum(update.tokens for update in one.updates) == 12
    assert [update.finish for update in one.updates] == [None] * 11 + ["length"]
    assert engine.count == 12


async def test_steps_that_bring_no_text_are_counted(thread: EngineThread, engine: Steps) -> None:
    """Who looks whether the engine goes on must not take a long prompt for a standstill."""
    one = Watched(1, length=100)
    thread.start(one.generation)
    await one.first.wait()
    assert len(one.updates) == 1
    assert thread.steps >= 12


async def test_one_call_of_the_loop_for_each_step(
    thread: EngineThread, engine: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, calls = asyncio.get_running_loop(), []
    call = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a, **k: (calls.append(a), call(*a, **k)))
    many = [Watched(10) for _ in range(5)]
    engine.go_on.clear()
    for one in many:
        thread.start(one.generation)
    engine.go_on.set()
    for one in many:
        await one.ended.wait()
    assert len(calls) <= engine.count < 30


async def test_cancel_in_decode(thread: EngineThread, engine: Steps) -> None:
    one = Watched()
    thread.start(one.generation)
    await one.first.wait()
    thread.cancel(one.generation)
    thread.cancel(one.generation)
    await one.ended.wait()
    thread.cancel(one.generation)
    after = Watched(1)
    thread.start(after.generation)
    await after.ended.wait()
    assert one.finish == "cancelled"
    assert one.generation.sequence.slot is None


async def test_cancel_takes_one_step(thread: EngineThread, engine: Steps) -> None:
    one = Watched()
    engine.go_on.clear()
    thread.start(one.generation)
    await asyncio.to_thread(engine.reached.wait, 10)
    thread.cancel(one.generation)
    engine.go_on.set()
    await one.ended.wait()
    assert (one.finish, engine.count) == ("cancelled", 1)


async def test_cancel_in_prefill(thread: EngineThread, engine: Steps) -> None:
    one = Watched(length=8 * 50)
    engine.go_on.clear()
    thread.start(one.generation)
    await asyncio.to_thread(engine.reached.wait, 10)
    thread.cancel(one.generation)
    engine.go_on.set()
    await one.ended.wait()
    assert (one.finish, one.text, engine.count) == ("cancelled", "", 1)


async def test_a_stop_string_ends_the_answer(thread: EngineThread) -> None:
    whole = Watched(20)
    thread.start(whole.generation)
    await whole.ended.wait()
    stop = whole.text[3:7]
    one = Watched(20, stop=(stop,))
    thread.start(one.generation)
    await one.ended.wait()
    assert (one.text, one.finish) == (whole.text[: whole.text.index(stop)], "stop")


async def test_a_failed_step_ends_what_runs_and_nothing_else(thread: EngineThread, engine: Steps) -> None:
    running = [Watched(), Watched()]
    for one in running:
        thread.start(one.generation)
        await one.first.wait()
    engine.failure = RuntimeError("a bug")
    for one in running:
        await one.ended.wait()
        assert one.finish == "error"
        assert one.updates[-1].message
    assert engine.cache.allocated_bytes == 0
    after = Watched(3)
    thread.start(after.generation)
    await after.ended.wait()
    assert after.finish == "length"


async def test_a_generation_that_cannot_start_fails_alone(thread: EngineThread) -> None:
    good, bad = Watched(5), Watched(prompt=[VOCABULARY])
    thread.start(bad.generation)
    thread.start(good.generation)
    await bad.ended.wait()
    await good.ended.wait()
    assert (bad.finish, good.finish) == ("error", "length")


async def test_text_that_cannot_be_decoded_fails_alone(thread: EngineThread, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = Watched(5), Watched(5)
    monkeypatch.setattr(bad.generation.text, "push", lambda token: {}[token])
    thread.start(bad.generation)
    thread.start(good.generation)
    await bad.ended.wait()
    await good.ended.wait()
    assert (bad.finish, good.finish) == ("error", "length")


async def test_a_follower_that_fails_concerns_nobody_else(thread: EngineThread) -> None:
    good, bad = Watched(5), Watched(5)
    bad.generation.on_update = lambda update: {}[update]
    thread.start(bad.generation)
    thread.start(good.generation)
    await good.ended.wait()
    assert good.finish == "length"


async def test_idle_makes_no_steps(thread: EngineThread, engine: Steps) -> None:
    for total in (3, 6):
        one = Watched(3)
        thread.start(one.generation)
        await one.ended.wait()
        assert engine.count == total


async def test_stop_interrupts_what_runs(thread: EngineThread) -> None:
    running = [Watched() for _ in range(3)]
    for one in running:
        thread.start(one.generation)
    for one in running:
        await one.first.wait()
    await asyncio.to_thread(thread.stop)
    await asyncio.to_thread(thread.stop)
    for one in running:
        await one.ended.wait()
    assert [one.finish for one in running] == ["interrupted"] * 3
    late = Watched()
    thread.start(late.generation)
    thread.cancel(late.generation)
    await late.ended.wait()
    assert late.finish == "interrupted"


async def test_a_thread_that_breaks_ends_what_runs(
    thread: EngineThread, engine: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Watched()
    thread.start(one.generation)
    await one.first.wait()
    monkeypatch.setattr(thread, "_take", lambda *_: {}["a bug"])
    await one.ended.wait()
    assert one.finish == "error"
    late = Watched()
    thread.start(late.generation)
    await late.ended.wait()
    assert late.finish == "interrupted"


async def test_cycles_leave_no_threads(forward: PackedModel) -> None:
    before = threading.active_count()
    for _ in range(20):
        thread = EngineThread(Steps(forward), asyncio.get_running_loop())
        one = Watched(2)
        thread.start(one.generation)
        await one.ended.wait()
        thread.stop()
    assert threading.active_count() == before
