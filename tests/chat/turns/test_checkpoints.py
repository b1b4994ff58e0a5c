"""Checkpoints of several stores: each on its own, whatever becomes of another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from chat.errors import HistoryUnavailable
from chat.turns import checkpoints
from chat.turns.checkpoints import Checkpoints
from llm.events import Finished


@dataclass(eq=False)
class Store:
    """Keeps texts, once it was tried `failures` times; `tried` counts."""

    failure: Exception | None = None
    failures: int = 0
    tried: int = 0
    texts: dict[UUID, str] = field(default_factory=dict)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    stored: asyncio.Event = field(default_factory=asyncio.Event)

    async def started(self, generation: UUID) -> None:
        return None

    async def checkpoint(self, texts: Mapping[UUID, str]) -> set[UUID]:
        self.tried += 1
        if self.failure is not None and self.tried <= self.failures:
            self.failed.set()
            raise self.failure
        self.texts |= texts
        self.stored.set()
        return set()

    async def finish(self, generation: UUID, text: str, end: Finished) -> UUID | None:
        return uuid4()


@dataclass(eq=False)
class Running:
    """A turn with a text."""

    store: Store
    text: str
    generation: UUID = field(default_factory=uuid4)
    ending: bool = False
    interrupted: bool = False

    def interrupt(self) -> None:
        self.interrupted = True


@pytest.mark.parametrize("failure", [HistoryUnavailable(), ValueError("a session that cannot be read back")])
async def test_a_store_that_fails_keeps_no_text_of_another_from_being_stored(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    failing, sound = Store(failure, failures=3), Store()
    ill, healthy, beside = Running(failing, "ill"), Running(sound, "healthy"), Running(sound, "beside it")
    checks = Checkpoints()
    for turn in (ill, healthy, beside):
        checks.mark(turn)
    await sound.stored.wait()
    assert sound.texts == {healthy.generation: "healthy", beside.generation: "beside it"}
    assert sound.tried == 1
    ill.text = "ill, and more"
    await failing.stored.wait()  # it is tried again by itself
    assert failing.texts == {ill.generation: "ill, and more"}
    assert (failing.tried, sound.tried) == (4, 1)
    assert not any(turn.interrupted for turn in (ill, healthy, beside))
    assert len(caplog.records) == 1  # said once
    await checks.aclose()


async def test_a_text_that_is_refused_keeps_no_other_of_its_store_from_being_stored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    store = Store()
    refused, sound, beside = (Running(store, text) for text in ("\ud800", "sound", "beside it"))
    again, together = asyncio.Event(), asyncio.Event()
    groups: list[set[str]] = []

    async def checkpoint(texts: Mapping[UUID, str]) -> set[UUID]:
        groups.append(set(texts.values()))
        if len(groups) > 8:
            again.set()
        if again.is_set() and groups[-1] == {"sound", "beside it"}:
            together.set()
        for text in texts.values():
            text.encode()
        store.texts |= texts
        return set()

    store.checkpoint = checkpoint  # type: ignore[method-assign]
    checks = Checkpoints()
    for turn in (refused, sound, beside):
        checks.mark(turn)
    await again.wait()
    assert groups[:4] == [{"\ud800", "sound", "beside it"}, {"\ud800"}, {"sound"}, {"beside it"}]
    assert store.texts == {sound.generation: "sound", beside.generation: "beside it"}
    checks.mark(sound)
    checks.mark(beside)
    await together.wait()
    assert len(caplog.records) == 1  # said once
    refused.ending = True
    await checks.aclose()


async def test_each_store_that_fails_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    one, other = Store(HistoryUnavailable(), failures=4), Store(HistoryUnavailable(), failures=2)
    checks = Checkpoints()
    checks.mark(Running(one, "of one"))
    await one.failed.wait()
    checks.mark(Running(other, "of the other"))
    checks.mark(Running(other, "beside it"))
    await one.stored.wait()
    await other.stored.wait()
    assert [record.getMessage().split(" running")[0] for record in caplog.records] == ["The text of 1", "The text of 2"]
    await checks.aclose()


async def test_a_turn_that_ends_meanwhile_is_not_stored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    first, second = Store(), Store()
    ended = Running(second, "ended while the first store was written")
    checks = Checkpoints()

    async def checkpoint(texts: Mapping[UUID, str]) -> set[UUID]:
        ended.ending = True
        first.stored.set()
        return set()

    first.checkpoint = checkpoint  # type: ignore[method-assign]
    checks.mark(Running(first, "goes on"))
    checks.mark(ended)
    await first.stored.wait()
    await checks.aclose()
    assert second.tried == 0
