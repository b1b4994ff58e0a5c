"""Messages a minute."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from django.test import override_settings
from limits.storage import memory

from chat.errors import NotFound, RateLimited, TurnInProgress
from chat.history.values import Accepted, Caller
from chat.models import Message
from chat.turns.registry import Turns, message_limits
from chat.visitors import limiter
from chat.visitors.limiter import Counted, Limiter
from llm.errors import Overloaded
from llm.events import Finished
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import ScriptedController
from tests.stores import Redis

PARAMS = SamplingParams()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that stands still."""
    clock = SimpleNamespace(now=1_000_000.0)
    for module in (memory, limiter):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: clock.now, monotonic=lambda: clock.now))
    return clock


async def take(limiter: Limiter, visitor: UUID, address: str = "") -> Counted:
    return await limiter.atake(message_limits(visitor, address))


@override_settings(CHAT_MESSAGES_PER_MINUTE="2")
async def test_a_visitor_has_so_many_messages_a_minute(visitor: Caller, clock: SimpleNamespace) -> None:
    rates = Limiter("messages")
    await take(rates, visitor.visitor)
    clock.now += 20
    await take(rates, visitor.visitor)
    for _ in range(5):
        with pytest.raises(RateLimited) as refused:
            await take(rates, visitor.visitor)
        assert refused.value.retry_after == 40
    await take(rates, uuid4())
    clock.now += 40
    await take(rates, visitor.visitor)


@override_settings(CHAT_MESSAGES_PER_MINUTE="1")
async def test_what_came_to_nothing_does_not_count(visitor: Caller, clock: SimpleNamespace) -> None:
    rates = Limiter("messages")
    for _ in range(3):
        await rates.agive_back(await take(rates, visitor.visitor))
    await take(rates, visitor.visitor)
    with pytest.raises(RateLimited):
        await take(rates, visitor.visitor)


@override_settings(CHAT_MESSAGES_PER_MINUTE="5", CHAT_MESSAGES_PER_MINUTE_PER_ADDRESS="2")
async def test_an_address_has_its_own_rate_and_its_refusals_cost_the_visitor_nothing(clock: SimpleNamespace) -> None:
    rates, visitor = Limiter("messages"), a_visitor()
    for _ in range(2):
        await take(rates, uuid4(), "192.0.2.1")
    for _ in range(9):
        with pytest.raises(RateLimited):
            await take(rates, visitor.visitor, "192.0.2.1")
    for _ in range(5):
        await take(rates, visitor.visitor)


@override_settings(CHAT_MESSAGES_PER_MINUTE="0")
async def test_no_rate_is_no_limit(visitor: Caller) -> None:
    rates = Limiter("messages")
    for _ in range(100):
        await take(rates, visitor.visitor, "192.0.2.1")


@pytest.mark.django_db(transaction=True)
@override_settings(CHAT_MESSAGES_PER_MINUTE="2")
async def test_only_what_is_accepted_counts(turns: Turns, controller: ScriptedController, visitor: Caller) -> None:
    first = await turns.start(question(visitor, request_id="f"), PARAMS, 0.0)
    for _ in range(3):
        assert not (await turns.start(question(visitor, request_id="f"), PARAMS, 0.0)).new
        with pytest.raises(TurnInProgress):
            await turns.start(question(visitor, conversation=first.conversation), PARAMS, 0.0)
        with pytest.raises(NotFound):
            await turns.start(question(visitor, conversation=uuid4()), PARAMS, 0.0)
    controller.refuses = Overloaded("Full.")
    with pytest.raises(Overloaded):
        await turns.start(question(visitor), PARAMS, 0.0)
    controller.refuses = None
    await turns.start(question(visitor), PARAMS, 0.0)
    places, messages = len(controller.tickets), await Message.objects.acount()
    with pytest.raises(RateLimited):
        await turns.start(question(visitor), PARAMS, 0.0)
    assert (len(controller.tickets), await Message.objects.acount()) == (places, messages)
    assert not (await turns.start(question(visitor, request_id="f"), PARAMS, 0.0)).new
    for ticket in controller.tickets:
        if not ticket.cancelled:
            await ticket.tell(Finished(reason="stop"))


@pytest.mark.django_db(transaction=True)
@override_settings(CHAT_MESSAGES_PER_MINUTE="4")
async def test_the_same_frame_at_once_counts_once(
    turns: Turns, visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, together = turns.history.accepted, asyncio.Barrier(4)

    async def accepted(visitor: Caller, request_id: str) -> Accepted | None:
        found = await read(visitor, request_id)
        await together.wait()
        return found

    monkeypatch.setattr(turns.history, "accepted", accepted)
    again = [question(visitor, request_id="f") for _ in range(4)]
    assert sum(each.new for each in await asyncio.gather(*(turns.start(each, PARAMS, 0.0) for each in again))) == 1
    monkeypatch.undo()
    for _ in range(3):
        await turns.start(question(visitor), PARAMS, 0.0)
    with pytest.raises(RateLimited):
        await turns.start(question(visitor), PARAMS, 0.0)


@override_settings(CHAT_MESSAGES_PER_MINUTE="3")
async def test_a_redis_that_does_not_answer_holds_up_the_first_message_and_none_after_it(
    visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiter, "REDIS_SECONDS", 0.05)
    asked: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda reader, writer: asked.append(writer), "127.0.0.1", 0)
    with override_settings(REDIS_URL=f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"):
        rates = Limiter("messages")
    await take(rates, visitor.visitor)
    times = len(asked)
    assert times
    for _ in range(2):
        await take(rates, visitor.visitor)
    with pytest.raises(RateLimited):
        await take(rates, visitor.visitor)
    assert len(asked) == times
    rates.close()
    server.close()
    for writer in asked:
        writer.close()


@override_settings(CHAT_MESSAGES_PER_MINUTE="3")
async def test_processes_that_share_a_redis_count_together_and_alone_while_it_is_away(
    own_redis: Redis, visitor: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    with override_settings(REDIS_URL=own_redis.url):
        one, two = Limiter("messages"), Limiter("messages")
    await take(one, visitor.visitor)
    await two.agive_back(await take(two, visitor.visitor))
    await take(two, visitor.visitor)
    await take(one, visitor.visitor)
    for rates in (one, two):
        with pytest.raises(RateLimited) as refused:
            await take(rates, visitor.visitor)
        assert 0 < refused.value.retry_after <= 61
    own_redis.kill()
    for rates in (one, two):
        for _ in range(3):
            await take(rates, visitor.visitor)
        with pytest.raises(RateLimited):
            await take(rates, visitor.visitor)
    assert len(caplog.records) == 2  # said once by each
    own_redis.start()
    for _ in range(3):
        await take(one, visitor.visitor)
    with pytest.raises(RateLimited):
        await take(two, visitor.visitor)
    for rates in (one, two):
        rates.close()
