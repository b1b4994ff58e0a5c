"""Two processes of one site, here two Turns over one database and one channel layer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest

from chat.cluster import bus, follower, publisher
from chat.cluster.bus import Bus
from chat.cluster.follower import Follower
from chat.cluster.messages import AnyMessage, News, Subscribe, Unsubscribe
from chat.errors import HistoryUnavailable, NotFound, Unreachable
from chat.history.history import History
from chat.history.values import Accepted, Caller, StoredAnswer, StoredGeneration
from chat.models import Conversation, Generation, Visitor
from chat.streams.hub import Hub
from chat.turns import turn as turn_module
from chat.turns import unwatched
from chat.turns.registry import Turns
from chat.wire.frames import ConversationChanged, GenerationFinished, GenerationSnapshot
from llm.events import Delta, Finished, Queued, Started
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import FaultyLayer, ScriptedController, ScriptedTicket, Timers
from tests.chat.tabs import Tab

pytestmark = pytest.mark.django_db(transaction=True)

PARAMS = SamplingParams()
STOP = Finished(reason="stop")


@dataclass
class Process:
    """`tickets` are the places its turns have."""

    id: UUID
    turns: Turns
    controller: ScriptedController

    async def ask(self, visitor: Caller) -> tuple[Accepted, ScriptedTicket]:
        accepted = await self.turns.start(question(visitor), PARAMS, 0.0)
        return accepted, self.controller.tickets[-1]

    def readers(self, accepted: Accepted) -> int:
        transcript = self.turns.hub.transcript(accepted.generation)
        assert transcript is not None
        return len(transcript.readers)


@pytest.fixture
def layer() -> FaultyLayer:
    return FaultyLayer()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits for what does not come are short; each delta is one of its own."""
    for module, name, seconds in (
        (follower, "ANSWER_SECONDS", 0.1),
        (bus, "BACKOFF", 0.05),
        (publisher, "BACKOFF", 0.05),
        (turn_module, "GAP", 0.0),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture
async def site(layer: FaultyLayer) -> AsyncIterator[tuple[Process, Process]]:
    processes = []
    for _ in range(2):
        id, controller = uuid4(), ScriptedController()
        turns = Turns(controller, History(process=id), Hub())
        turns.meet(layer, id)
        processes.append(Process(id, turns, controller))
    yield processes[0], processes[1]
    for process in processes:
        await process.turns.aclose()
        await process.turns.part()


@pytest.fixture
def one(site: tuple[Process, Process]) -> Process:
    return site[0]


@pytest.fixture
def two(site: tuple[Process, Process]) -> Process:
    return site[1]


async def happens(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 nothing tells
            await asyncio.sleep(0.005)


async def test_an_answer_is_the_same_in_another_process(one: Process, two: Process, visitor: Caller) -> None:
    accepted, ticket = await one.ask(visitor)
    here, there = Tab(one.turns, visitor), Tab(two.turns, visitor)
    await here.open(accepted, 0)
    await there.open(accepted, 0)
    await ticket.tell(Queued(position=1, size=1), Started(queue_time=0.5), Delta("a"))
    await there.until(lambda: there.text == "a")
    await ticket.say("b", "c")
    await ticket.tell(STOP)
    for tab in (here, there):
        await tab.until(lambda tab=tab: tab.ends)  # type: ignore[misc]
        assert (tab.text, tab.ends) == ("abc", ["stop"])
    assert [kind for kind in there.kinds if kind is not ConversationChanged][-1] is GenerationFinished
    await happens(lambda: not one.readers(accepted))


async def test_a_reader_who_comes_late_begins_where_they_were(one: Process, two: Process, visitor: Caller) -> None:
    accepted, ticket = await one.ask(visitor)
    here = Tab(one.turns, visitor)
    await here.open(accepted, 0)
    await ticket.say("a")
    await here.until(lambda: here.text == "a")
    await ticket.say("b")
    await here.until(lambda: here.text == "ab")
    from_one, from_nothing, from_nowhere = (Tab(two.turns, visitor) for _ in range(3))
    await from_one.open(accepted, 1)
    await from_nothing.open(accepted)
    await from_nowhere.open(accepted, 77)
    await ticket.say("c")
    await ticket.tell(STOP)
    for tab, text in ((from_one, "bc"), (from_nothing, "abc"), (from_nowhere, "abc")):
        await tab.until(lambda tab=tab: tab.ends)  # type: ignore[misc]
        assert tab.text == text
    assert GenerationSnapshot not in from_one.kinds
    assert GenerationSnapshot in from_nothing.kinds


async def test_what_is_anothers_is_not_found_elsewhere(one: Process, two: Process, visitor: Caller) -> None:
    accepted, _ = await one.ask(visitor)
    mine, stranger = Tab(two.turns, visitor), Tab(two.turns, a_visitor())
    await mine.open(accepted)
    with pytest.raises(NotFound):
        await stranger.open(accepted)
    with pytest.raises(NotFound):
        await two.turns.stop(stranger.visitor, accepted.generation)


async def test_watchers_elsewhere_are_watchers(
    one: Process, two: Process, visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers()
    monkeypatch.setattr(unwatched, "later", timers.later)
    accepted, _ = await one.ask(visitor)
    await happens(lambda: timers.running == [120.0])
    tab = Tab(two.turns, visitor)
    await tab.open(accepted)
    assert timers.running == []
    tab.feed.close()
    await happens(lambda: timers.running == [120.0])


async def test_a_watch_that_is_not_renewed_ends(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "LEASE", 0.1)
    monkeypatch.setattr(follower, "RENEW", 0.03)
    accepted, _ = await one.ask(visitor)
    await Tab(two.turns, visitor).open(accepted)
    await asyncio.sleep(0.3)
    assert one.readers(accepted) == 1
    layer.loses = lambda message: isinstance(message, Subscribe | Unsubscribe)
    await happens(lambda: not one.readers(accepted))


async def test_tabs_of_one_process_share_a_watch(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer
) -> None:
    accepted, ticket = await one.ask(visitor)
    tabs = [Tab(two.turns, visitor) for _ in range(3)]
    await asyncio.gather(*(tab.open(accepted) for tab in tabs))
    await ticket.tell(Delta("a"), STOP)
    for tab in tabs:
        await tab.until(lambda tab=tab: tab.ends)  # type: ignore[misc]
    assert len([message for message in layer.sent if isinstance(message, Subscribe)]) == 1


async def test_many_answers_travel_in_one_message(one: Process, two: Process, layer: FaultyLayer) -> None:
    visitors = [a_visitor() for _ in range(40)]
    asked = [await one.ask(visitor) for visitor in visitors]
    tabs = [Tab(two.turns, visitor) for visitor in visitors]
    await asyncio.gather(*(tab.open(accepted, 0) for tab, (accepted, _) in zip(tabs, asked, strict=True)))
    layer.sent.clear()
    for _ in range(5):
        for _, ticket in asked:
            await ticket.say("x")
        await asyncio.gather(*(tab.until(lambda tab=tab: tab.changed.is_set() or tab.text) for tab in tabs))
    await asyncio.gather(*(tab.until(lambda tab=tab: tab.text == "xxxxx") for tab in tabs))
    news = [message for message in layer.sent if isinstance(message, News)]
    assert len(news) <= 10
    assert max(len(message.parts) for message in news) == len(visitors)


async def test_lost_news_are_asked_for_again(one: Process, two: Process, visitor: Caller, layer: FaultyLayer) -> None:
    accepted, ticket = await one.ask(visitor)
    tab = Tab(two.turns, visitor)
    await tab.open(accepted, 0)
    await ticket.say("a")
    await tab.until(lambda: tab.text == "a")
    lost: list[AnyMessage] = []

    def loses_one(message: AnyMessage) -> bool:
        if isinstance(message, News) and not lost:
            lost.append(message)
            return True
        return False

    layer.loses = loses_one
    await ticket.say("b")
    await happens(lambda: lost)
    await ticket.say("c")
    await tab.until(lambda: tab.text == "abc")
    assert GenerationSnapshot not in tab.kinds
    await ticket.tell(STOP)
    await tab.until(lambda: tab.ends)


async def test_the_row_stands_in_while_its_process_is_silent(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer
) -> None:
    accepted, ticket = await one.ask(visitor)
    layer.loses = lambda message: isinstance(message, News)
    tab = Tab(two.turns, visitor)
    await tab.open(accepted, 0)
    await tab.until(lambda: GenerationSnapshot in tab.kinds)
    assert tab.text == ""
    await ticket.say("a", "b")
    await happens(lambda: one.turns.hub.transcript(accepted.generation).text == "ab")  # type: ignore[union-attr]
    await accepted.store.checkpoint({accepted.generation: "ab"})
    await tab.until(lambda: tab.text == "ab")
    late = Tab(two.turns, visitor)
    await late.open(accepted, 1)  # its own number means nothing there
    await late.until(lambda: late.text == "ab")
    again = tab.next_seq
    layer.loses = lambda message: False
    await ticket.say("c")
    await tab.until(lambda: tab.text == "abc")
    await late.until(lambda: late.text == "abc")
    back = Tab(one.turns, visitor)
    await back.open(accepted, again)  # nor does the row's number mean anything here
    await back.until(lambda: back.text == "abc")
    await ticket.tell(STOP)
    for each in (tab, late, back):
        await each.until(lambda each=each: each.ends)  # type: ignore[misc]
        assert (each.text, each.ends) == ("abc", ["stop"])


@pytest.mark.parametrize("failure", [HistoryUnavailable(), ValueError("a row that cannot be read")])
async def test_nobody_waits_for_ever_to_watch_while_neither_process_nor_row_answers(
    one: Process,
    two: Process,
    visitor: Caller,
    layer: FaultyLayer,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception,
) -> None:
    monkeypatch.setattr(follower, "KNOWN_SECONDS", 1.0)
    accepted, ticket = await one.ask(visitor)
    layer.loses = lambda message: isinstance(message, News)
    answer, asked = two.turns.history.answer, []

    async def once(*arguments: Any) -> StoredAnswer | None:
        asked.append(arguments)
        if len(asked) > 1:
            raise failure
        return await answer(*arguments)

    monkeypatch.setattr(two.turns.history, "answer", once)
    tab = Tab(two.turns, visitor)
    with pytest.raises(HistoryUnavailable):
        await tab.open(accepted)
    assert len(asked) > 2  # it was tried again meanwhile
    monkeypatch.setattr(two.turns.history, "answer", answer)
    await tab.open(accepted)
    layer.loses = lambda message: False
    await ticket.tell(Delta("a"), STOP)
    await tab.until(lambda: tab.ends)
    assert (tab.text, tab.ends) == ("a", ["stop"])


async def test_who_comes_as_the_last_one_leaves_is_not_left_waiting(visitor: Caller) -> None:
    waits: list[asyncio.Task[None]] = []
    stored = StoredAnswer(generation=StoredGeneration(id=uuid4(), state="stop"), text="Hi", process=uuid4())

    async def watch() -> None:
        await following.watch(stored.generation.id, stored.process, read).showable()

    async def read() -> StoredAnswer:
        if waits:
            return stored
        waits.append(asyncio.create_task(watch()))
        raise HistoryUnavailable

    following = Follower(Bus(FaultyLayer(), uuid4(), lambda message: None, lambda: None))
    following.watch(stored.generation.id, stored.process, read)
    await happens(lambda: waits)
    async with asyncio.timeout(2):
        await waits[0]
    await following.aclose()


async def test_the_row_is_read_for_those_whose_it_is_by_now(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer
) -> None:
    accepted, ticket = await one.ask(visitor)
    before = Tab(two.turns, visitor)
    await before.open(accepted, 0)
    account = a_visitor()
    await Visitor.objects.acreate(pk=account.visitor)
    await Conversation.objects.aupdate(visitor=account.visitor)  # as at a sign-in
    after = Tab(two.turns, account)
    await after.open(accepted, 0)
    layer.loses = lambda message: isinstance(message, News)
    await ticket.say("a")
    await accepted.store.checkpoint({accepted.generation: "a"})
    two.turns.cluster._broken()  # type: ignore[union-attr]  # so that it asks, in vain
    await after.until(lambda: after.text == "a")
    assert not after.ends
    await ticket.tell(STOP)
    await after.until(lambda: after.ends)
    assert after.ends == ["stop"]


async def test_an_end_that_only_the_row_has_is_told_once(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer
) -> None:
    accepted, ticket = await one.ask(visitor)
    tab = Tab(two.turns, visitor)
    await tab.open(accepted, 0)
    await ticket.say("a", "b")
    await tab.until(lambda: tab.text == "ab")
    await accepted.store.checkpoint({accepted.generation: "a"})
    layer.go()
    # as another process does it that takes this one for dead
    await Generation.objects.filter(pk=accepted.generation).aupdate(state="interrupted", code="interrupted")
    await tab.until(lambda: tab.ends)
    assert (tab.text, tab.ends) == ("a", ["interrupted"])
    layer.come_back()
    await ticket.tell(Delta("c"), STOP)
    await happens(lambda: one.turns.hub.transcript(accepted.generation) is None)
    late = Tab(two.turns, visitor)
    await late.open(accepted)
    await late.until(lambda: late.ends)
    tab.take()
    assert (late.text, late.ends, tab.ends) == ("a", ["interrupted"], ["interrupted"])


async def test_a_line_that_breaks_is_mended_on_both_sides(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer, caplog: pytest.LogCaptureFixture
) -> None:
    accepted, ticket = await one.ask(visitor)
    tab = Tab(two.turns, visitor)
    await tab.open(accepted, 0)
    await ticket.say("a")
    await tab.until(lambda: tab.text == "a")
    layer.go()
    with pytest.raises(Unreachable):
        await two.turns.stop(visitor, accepted.generation)
    await ticket.say("b")
    layer.come_back()
    await tab.until(lambda: tab.text == "ab")
    stopped = asyncio.create_task(tab.until(lambda: tab.ends))
    await happens(lambda: len(layer.groups.get(bus.GROUP, ())) == 2)
    await two.turns.stop(visitor, accepted.generation)
    await stopped
    assert tab.ends == ["cancelled"]
    assert ticket.cancelled
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == ["chat.cluster.bus"] * 2


async def test_changes_reach_the_tabs_of_other_processes_once(one: Process, two: Process, visitor: Caller) -> None:
    tabs = [Tab(one.turns, visitor), Tab(two.turns, visitor), Tab(two.turns, a_visitor())]
    await one.ask(visitor)
    for tab in tabs[:2]:
        await tab.until(lambda tab=tab: tab.kinds == [ConversationChanged])  # type: ignore[misc]
    await asyncio.sleep(0.1)
    for tab, expected in zip(tabs, ([ConversationChanged], [ConversationChanged], []), strict=True):
        tab.take()
        assert tab.kinds == expected


async def test_a_change_is_told_that_comes_while_another_cannot_be(
    one: Process, two: Process, visitor: Caller, layer: FaultyLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab = Tab(two.turns, visitor)
    told, telling, fails = layer.group_send, asyncio.Event(), asyncio.Event()

    async def once(group: str, message: dict[str, Any]) -> None:
        monkeypatch.setattr(layer, "group_send", told)
        telling.set()
        await fails.wait()
        raise ConnectionError("lost")

    await happens(lambda: len(layer.groups.get(bus.GROUP, ())) == 2)
    monkeypatch.setattr(layer, "group_send", once)
    one.turns.hub.announce(a_visitor().visitor, uuid4())
    await telling.wait()
    one.turns.hub.announce(visitor.visitor, uuid4())
    fails.set()
    await tab.until(lambda: tab.kinds == [ConversationChanged])


async def test_a_process_that_ends_tells_what_is_left_to_tell(one: Process, two: Process, visitor: Caller) -> None:
    accepted, ticket = await one.ask(visitor)
    tab = Tab(two.turns, visitor)
    await tab.open(accepted, 0)
    await ticket.say("a")
    await tab.until(lambda: tab.text == "a")
    await ticket.say("b")
    await one.turns.aclose()
    await one.turns.part()
    await tab.until(lambda: tab.ends)
    assert (tab.text, tab.ends) == ("ab", ["interrupted"])
