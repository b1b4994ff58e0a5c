"""Signs of life, and what is done about those who give none; on a clock of the test's own in the place of Now()."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError
from django.db.models import DateTimeField, Expression, Value

from chat.cluster import heartbeat
from chat.cluster.heartbeat import BEAT, Heartbeat
from chat.history.history import History
from chat.history.values import Accepted, Caller
from chat.models import Generation, Process
from tests.chat.conftest import question

pytestmark = pytest.mark.django_db(transaction=True)


class Clock:
    """The database's."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def expression(self) -> Expression:
        return Value(self.now, output_field=DateTimeField())


class Hearts:
    """Those of several processes; `ended` is what they told, `running` what runs in any of them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.ended: list[tuple[UUID, UUID]] = []
        self.running: set[UUID] = set()
        self.all: list[Heartbeat] = []

    def make(self, owner: UUID) -> Heartbeat:
        heart = Heartbeat(self.running.__contains__, lambda visitor, chat: self.ended.append((visitor, chat)), owner)
        self.all.append(heart)
        return heart

    async def beat(self, *hearts: Heartbeat, seconds: float) -> None:
        """So long, each every BEAT seconds."""
        for _ in range(round(seconds / BEAT)):
            self.clock.now += timedelta(seconds=BEAT)
            for heart in hearts:
                await heart.beat()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "Now", clock.expression)
    return clock


@pytest.fixture
async def hearts(clock: Clock) -> AsyncIterator[Hearts]:
    hearts = Hearts(clock)
    yield hearts
    for heart in hearts.all:
        await heart.aclose()


async def state(accepted: Accepted) -> str:
    return (await Generation.objects.aget(pk=accepted.generation)).state


async def test_what_a_dead_process_left_is_ended_and_what_a_living_one_runs_is_not(
    hearts: Hearts, visitor: Caller
) -> None:
    owners = [uuid4(), uuid4()]
    living, dying = (hearts.make(owner) for owner in owners)
    runs, left = [await History(process=owner).accept(question(visitor)) for owner in owners]
    hearts.running |= {runs.generation, left.generation}
    await hearts.beat(living, dying, seconds=12)
    await hearts.beat(living, seconds=8)
    assert [await state(each) for each in (runs, left)] == ["queued", "queued"]
    await hearts.beat(living, seconds=2)
    assert [await state(each) for each in (runs, left)] == ["queued", "interrupted"]
    assert hearts.ended == [(visitor.visitor, left.conversation)]
    assert not await left.store.finish(left.generation, "late", heartbeat.INTERRUPTED)
    await hearts.beat(living, dying, seconds=20)
    assert [await state(each) for each in (runs, left)] == ["queued", "interrupted"]


async def test_a_process_that_has_just_begun_is_not_sure_of_the_others(hearts: Hearts, visitor: Caller) -> None:
    left = await History(process=uuid4()).accept(question(visitor))  # it never gave a sign
    heart = hearts.make(uuid4())
    await hearts.beat(heart, seconds=10)
    assert await state(left) == "queued"
    await hearts.beat(heart, seconds=2)
    assert await state(left) == "interrupted"


async def test_an_outage_of_the_database_ends_nobodys_answers(
    hearts: Hearts, visitor: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owners = [uuid4(), uuid4()]
    one, two = (hearts.make(owner) for owner in owners)
    ran = [await History(process=owner).accept(question(visitor)) for owner in owners]
    hearts.running |= {each.generation for each in ran}
    await hearts.beat(one, two, seconds=20)

    def away(heart: Heartbeat) -> None:
        raise OperationalError("the server closed the connection")

    monkeypatch.setattr(Heartbeat, "_give_sign", away)
    await hearts.beat(one, two, seconds=60)
    assert len(caplog.records) == 2  # said once by each
    monkeypatch.undo()
    monkeypatch.setattr(heartbeat, "Now", hearts.clock.expression)
    await hearts.beat(one, seconds=8)  # the other's connection comes back later
    await hearts.beat(one, two, seconds=30)
    assert [await state(each) for each in ran] == ["queued", "queued"]


async def test_a_machine_that_slept_ends_nobodys_answers(hearts: Hearts, visitor: Caller) -> None:
    owners = [uuid4(), uuid4()]
    one, two = (hearts.make(owner) for owner in owners)
    ran = [await History(process=owner).accept(question(visitor)) for owner in owners]
    hearts.running |= {each.generation for each in ran}
    await hearts.beat(one, two, seconds=20)
    hearts.clock.now += timedelta(hours=8)
    await hearts.beat(one, two, seconds=30)
    assert [await state(each) for each in ran] == ["queued", "queued"]


async def test_a_process_ends_its_own_rows_that_no_turn_writes(hearts: Hearts, visitor: Caller) -> None:
    owner = uuid4()
    heart, history = hearts.make(owner), History(process=owner)
    runs, lost = [await history.accept(question(visitor)) for _ in range(2)]
    hearts.running.add(runs.generation)
    await hearts.beat(heart, seconds=2)
    assert [await state(each) for each in (runs, lost)] == ["queued", "interrupted"]
    await history.accept(question(visitor, conversation=lost.conversation))  # the conversation is free again


async def test_a_process_that_leaves_is_dead_at_once(hearts: Hearts, visitor: Caller) -> None:
    staying, leaving = hearts.make(uuid4()), hearts.make(owner := uuid4())
    left = await History(process=owner).accept(question(visitor))
    hearts.running.add(left.generation)
    await hearts.beat(staying, leaving, seconds=14)
    await leaving.aclose()
    hearts.all.remove(leaving)
    await hearts.beat(staying, seconds=2)
    assert await state(left) == "interrupted"


async def test_rows_of_the_dead_are_forgotten_after_an_hour(hearts: Hearts, clock: Clock) -> None:
    heart, other = hearts.make(uuid4()), uuid4()
    await Process.objects.acreate(pk=other, last_seen=clock.now)
    await hearts.beat(heart, seconds=20)
    assert await Process.objects.acount() == 2
    clock.now += timedelta(hours=1)
    await hearts.beat(heart, seconds=20)
    assert await Process.objects.acount() == 1


async def test_the_first_beat_is_given_before_anything_is_served(
    hearts: Hearts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # by the real Now()
    heart = hearts.make(owner := uuid4())
    await heart.start()
    last_seen: Callable[[], datetime] = Process.objects.values_list("last_seen", flat=True).filter(pk=owner).get
    assert abs(await sync_to_async(last_seen)() - datetime.now(UTC)) < timedelta(seconds=5)
