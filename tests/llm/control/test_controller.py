"""The controller's admission, queue, places and ends, on a backend that the test drives step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

import llm.control.generation
from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.control.generation import Generation
from llm.errors import ConfigurationError, Overloaded, Unavailable, VisitorLimit
from llm.event_stream import EventStream
from llm.events import Delta, Event, Finished, Queued, Started, Timings
from llm.sampling import SamplingParams
from tests.llm.scripted import ScriptedBackend, request

E = TypeVar("E", bound=Event)
Make = Callable[..., Awaitable[GenerationController]]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def limits(running: int, queued: int, **more: float) -> Settings:
    """Without further limits for one visitor, unless they are given."""
    values = {"per_visitor_running": 100, "per_visitor_queued": 100} | more
    return Settings(num_of_concurrent_executions=running, max_queue_size=queued, **values)  # type: ignore[arg-type]


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(backend: ScriptedBackend, clock: Clock) -> AsyncIterator[Make]:
    made: list[GenerationController] = []

    async def make_controller(running: int = 2, queued: int = 2, **more: float) -> GenerationController:
        controller = GenerationController(backend, limits(running, queued, **more), clock=clock)
        made.append(controller)
        await controller.load()
        return controller

    yield make_controller
    for controller in made:
        for job in backend.jobs:
            job.end("cancelled")
        await controller.aclose()


async def until(stream: EventStream, kind: type[E]) -> E:
    """The next event of that kind; others before it are dropped."""
    async for event in stream:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the stream ended without {kind.__name__}")


async def numbers(controller: GenerationController) -> tuple[int, int]:
    stats = await controller.stats()
    return stats.processing, stats.waiting


async def test_a_place_announced_before_the_ticket_is_run_is_told_when_it_is(make: Make) -> None:
    controller = await make(running=1)
    running = (await controller.admit("ada")).run(request("first"))
    await until(running, Started)
    ticket = await controller.admit("bob")
    await asyncio.sleep(0)  # what admission announces
    controller._tell()
    assert await until(ticket.run(request("second")), Queued) == Queued(position=1, size=1)


@pytest.mark.parametrize(("running", "queued"), [(2, 5), (1, 0), (1, 1), (3, 2)])
async def test_admit_burst_accepts_exactly_running_plus_queued(make: Make, running: int, queued: int) -> None:
    controller = await make(running, queued)
    answers = await asyncio.gather(*(controller.admit("ada") for _ in range(20)), return_exceptions=True)
    accepted = [answer for answer in answers if isinstance(answer, Generation)]
    refused = [answer for answer in answers if isinstance(answer, Overloaded)]
    assert len(accepted) == running + queued
    assert len(refused) == 20 - running - queued
    assert await numbers(controller) == (running, queued)
    assert refused[0].queue_size == queued
    assert refused[0].retry_after is not None


async def test_admit_before_the_model_is_ready_is_unavailable(backend: ScriptedBackend) -> None:
    controller = GenerationController(backend, limits(1, 1))
    with pytest.raises(Unavailable):
        await controller.admit("ada")


async def test_load_failure_is_told_and_raised() -> None:
    controller = GenerationController(ScriptedBackend("LLM_MODEL=x: no such model"), limits(1, 1))
    told = []
    controller.on_status(told.append)
    with pytest.raises(ConfigurationError):
        await controller.load()
    assert [(status.state, status.message) for status in told] == [("failed", "LLM_MODEL=x: no such model")]


async def test_run_streams_text_and_ends_once(make: Make, backend: ScriptedBackend, clock: Clock) -> None:
    controller = await make()
    ticket = await controller.admit("ada")
    stream = ticket.run(request())
    clock.now = 1.0
    assert await until(stream, Started) == Started(queue_time=1.0)
    clock.now = 1.5
    backend.jobs[0].say("Hel")
    clock.now = 2.5
    backend.jobs[0].say("lo")
    backend.jobs[0].end(completion_tokens=2)
    events = [event async for event in stream]
    assert events[:2] == [Delta("Hel"), Delta("lo")]
    (end,) = events[2:]
    assert end.reason == "stop"
    assert end.usage.completion_tokens == 2
    assert (end.timings.queue_time, end.timings.ttft, end.timings.decode_time) == (1.0, 1.5, 1.0)
    assert end.timings.tokens_per_second == 1.0
    stats = await controller.stats()
    assert (stats.finished, stats.prompt_tokens, stats.completion_tokens) == ({"stop": 1}, 3, 2)


async def test_work_moves_with_every_step_of_what_the_backend_has(make: Make, backend: ScriptedBackend) -> None:
    """With text or without: a prompt may take longer to compute than the model's process may stand still."""
    controller = await make(stall_seconds=30.0)
    assert controller.moves is None
    backend.gate.clear()
    stream = (await controller.admit("ada")).run(request())
    assert controller.moves is None  # it has its place, and its text is still being counted
    backend.gate.set()
    await until(stream, Started)
    for steps in (0, 1, 2):
        backend.steps = steps
        assert controller.moves == steps
    backend.jobs[0].end()
    await until(stream, Finished)
    assert controller.moves is None
    assert controller.stall_seconds == 30.0


async def test_work_may_stand_still_for_as_long_as_a_step_may_take(make: Make, backend: ScriptedBackend) -> None:
    backend.longest_step = 300.0
    assert (await make(stall_seconds=30.0)).stall_seconds == 300.0


async def test_waiting_hears_its_place_and_every_change(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 3)
    running = (await controller.admit("ada")).run(request("first"))
    await until(running, Started)
    tickets = [await controller.admit("bob") for _ in range(3)]
    streams = [ticket.run(request(str(number))) for number, ticket in enumerate(tickets)]
    heard = [await until(stream, Queued) for stream in streams]
    assert [(event.position, event.size) for event in heard] == [(1, 3), (2, 3), (3, 3)]
    tickets[1].cancel()
    assert await until(streams[2], Queued) == Queued(position=2, size=2, eta=None)
    backend.jobs[0].end()
    await until(streams[0], Started)
    assert await until(streams[2], Queued) == Queued(position=1, size=1, eta=0.0)


async def test_queue_is_served_in_order(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 5)
    streams = [(await controller.admit("ada")).run(request(str(number))) for number in range(5)]
    for number, stream in enumerate(streams):
        await until(stream, Started)
        assert [job.prompt for job in backend.jobs] == [str(started) for started in range(number + 1)]
        backend.jobs[-1].end()


async def test_next_waits_for_memory_and_nobody_overtakes(make: Make, backend: ScriptedBackend) -> None:
    """Not even a small one of a visitor who would be before it in fair order."""
    backend.kv_tokens = 100
    controller = await make(4, 4)
    large = (await controller.admit("ada")).run(request("large:70"))
    await until(large, Started)
    larger = (await controller.admit("ada")).run(request("larger:40"))
    assert await until(larger, Queued) == Queued(position=1, size=1)
    small = (await controller.admit("bob")).run(request("small:1"))
    assert (await until(small, Queued)).position == 2
    assert await numbers(controller) == (1, 2)
    assert (await controller.stats()).kv_reserved == 70
    backend.jobs[0].end()
    await until(larger, Started)
    await until(small, Started)
    assert [job.prompt for job in backend.jobs] == ["large", "larger", "small"]
    assert (await controller.stats()).kv_reserved == 41


@pytest.mark.parametrize("queued", [0, 3])
async def test_places_are_counted_whatever_the_memory(make: Make, backend: ScriptedBackend, queued: int) -> None:
    """Memory for two of four: the bound of all who are taken in is that of the places."""
    backend.kv_tokens = 200
    controller = await make(4, queued)
    answers = await asyncio.gather(*(controller.admit("ada") for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(answer, Generation) for answer in answers) == 4 + queued
    assert await numbers(controller) == (2, 2 + queued)
    tickets = [answer for answer in answers if isinstance(answer, Generation)]
    streams = [ticket.run(request("small:50")) for ticket in tickets]
    for stream in streams[:4]:
        await until(stream, Started)
    assert await numbers(controller) == (4, queued)


async def test_memory_of_a_prompt_not_counted_yet_is_the_most_there_can_be(
    make: Make, backend: ScriptedBackend
) -> None:
    backend.kv_tokens = 150
    controller = await make(2, 2)
    backend.gate.clear()
    first, second = [(await controller.admit("ada")).run(request("small:10")) for _ in range(2)]
    assert (await until(second, Queued)).position == 1
    assert backend.jobs == []
    backend.gate.set()
    await until(first, Started)
    await until(second, Started)


async def test_who_comes_closer_as_prompts_are_counted_is_told(make: Make, backend: ScriptedBackend) -> None:
    backend.kv_tokens = 100
    controller = await make(4, 4)
    backend.gate.clear()
    _, second, third = [(await controller.admit("ada")).run(request(text)) for text in ("a:60", "b:30", "c:60")]
    assert (await until(third, Queued)).position == 2
    backend.gate.set()
    await until(second, Started)
    assert await until(third, Queued) == Queued(position=1, size=1)


@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_who_waits_for_memory_may_leave(
    make: Make, backend: ScriptedBackend, advance: Callable[[float], None], how: str
) -> None:
    backend.kv_tokens = 100
    controller = await make(3, 3, queue_timeout=30.0)
    running = (await controller.admit("ada")).run(request("running:60"))
    await until(running, Started)
    ticket = await controller.admit("bob")
    large = ticket.run(request("large:50"))
    await until(large, Queued)
    if how == "cancel":
        small = (await controller.admit("eve")).run(request("small:40"))
        await until(small, Queued)
        ticket.cancel()
        await until(small, Started)
    else:
        advance(31.0)
    end = await until(large, Finished)
    assert (end.reason, end.code) == {"cancel": ("cancelled", None), "timeout": ("timeout", "queue_timeout")}[how]
    assert [job.cancels for job in backend.jobs] == [0] * len(backend.jobs)
    backend.jobs[0].end()
    await until(running, Finished)
    assert (await controller.stats()).kv_reserved == (40 if how == "cancel" else 0)


async def test_request_that_needs_more_than_there_is_fails_alone(make: Make, backend: ScriptedBackend) -> None:
    """A backend never says so; if it did, nobody would wait for ever."""
    controller = await make(2, 2)
    end = await until((await controller.admit("ada")).run(request("huge:101")), Finished)
    assert end.code == "error"
    assert await numbers(controller) == (0, 0)


async def test_request_that_cannot_be_served_hears_so_before_its_turn(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 2)
    running = (await controller.admit("ada")).run(request())
    await until(running, Started)
    before = (await controller.admit("bob")).run(request())
    end = await until((await controller.admit("eve")).run(request("too long")), Finished)
    assert (end.reason, end.message) == ("error", "The prompt is too long.")
    assert (await until(before, Queued)).position == 1
    assert await numbers(controller) == (1, 1)


async def test_cancel_running_keeps_the_place_until_the_backend_has_left(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 1)
    ticket = await controller.admit("ada")
    stream = ticket.run(request())
    await until(stream, Started)
    ticket.cancel()
    ticket.cancel()
    assert backend.jobs[0].cancels == 1
    assert await numbers(controller) == (1, 0)
    backend.jobs[0].say("late")
    backend.jobs[0].end("cancelled")
    assert [type(event) for event in [event async for event in stream]] == [Delta, Finished]
    assert await numbers(controller) == (0, 0)


async def test_cancel_queued_frees_its_place_at_once_and_touches_nobody(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 1)
    running = (await controller.admit("ada")).run(request())
    await until(running, Started)
    queued = await controller.admit("bob")
    stream = queued.run(request())
    await until(stream, Queued)
    queued.cancel()
    assert await numbers(controller) == (1, 0)
    await controller.admit("eve")
    assert await until(stream, Finished) == Finished(reason="cancelled", timings=Timings(queue_time=0.0))
    assert backend.jobs[0].cancels == 0


async def test_cancel_before_run_gives_the_place_back(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 0)
    ticket = await controller.admit("ada")
    ticket.cancel()
    assert await numbers(controller) == (0, 0)
    assert (await until(ticket.run(request()), Finished)).reason == "cancelled"
    assert backend.jobs == []
    assert await numbers(controller) == (0, 0)


async def test_ticket_that_is_not_run_is_lost(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm.control.generation, "RUN_WITHIN", 0.01)
    controller = await make(1, 1)
    await controller.admit("ada")
    waiting = (await controller.admit("bob")).run(request())
    assert isinstance(await until(waiting, Started), Started)


async def test_leaving_the_stream_cancels(make: Make, backend: ScriptedBackend) -> None:
    controller = await make()
    ticket = await controller.admit("ada")
    async with ticket.run(request()) as events:
        await until(events, Started)
    assert backend.jobs[0].cancels == 1


@pytest.mark.parametrize(
    ("text", "message"), [("too long", "The prompt is too long."), ("broken", "The model failed on this request.")]
)
async def test_failing_request_fails_alone(make: Make, backend: ScriptedBackend, text: str, message: str) -> None:
    controller = await make(2, 0)
    other = (await controller.admit("bob")).run(request())
    await until(other, Started)
    end = await until((await controller.admit("ada")).run(request(text)), Finished)
    assert (end.reason, end.code, end.message) == ("error", "error", message)
    assert await numbers(controller) == (1, 0)
    backend.jobs[0].end()
    assert (await until(other, Finished)).reason == "stop"


async def test_parameter_out_of_range_ends_with_its_name(make: Make) -> None:
    controller = await make()
    bad = request()
    bad = type(bad)(messages=bad.messages, params=SamplingParams(temperature=-1.0))
    end = await until((await controller.admit("ada")).run(bad), Finished)
    assert end.code == "invalid_request"
    assert end.message is not None
    assert "temperature" in end.message


async def test_expected_wait_follows_measured_service_times(make: Make, backend: ScriptedBackend, clock: Clock) -> None:
    controller = await make(1, 2)
    first = (await controller.admit("ada")).run(request())
    await until(first, Started)
    clock.now = 10.0
    backend.jobs[0].end()
    await until(first, Finished)
    second = (await controller.admit("ada")).run(request())
    await until(second, Started)
    clock.now = 14.0
    third = (await controller.admit("ada")).run(request())
    assert await until(third, Queued) == Queued(position=1, size=1, eta=6.0)


async def test_dead_backend_takes_nobody_in(make: Make, backend: ScriptedBackend) -> None:
    controller = await make()
    backend.die()
    assert controller.status.state == "down"
    with pytest.raises(Unavailable):
        await controller.admit("ada")


async def test_aclose_ends_what_runs_and_waits(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(1, 1)
    running = (await controller.admit("ada")).run(request())
    waiting = (await controller.admit("bob")).run(request())
    await until(running, Started)
    closing = asyncio.create_task(controller.aclose())
    assert (await until(waiting, Finished)).reason == "cancelled"
    assert not closing.done()
    backend.jobs[0].end("cancelled")
    await closing
    assert backend.closed
    with pytest.raises(Unavailable):
        await controller.admit("ada")


@pytest.fixture
async def advance(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the loop's time jump: what is due by then happens next."""
    loop, real, ahead = asyncio.get_running_loop(), asyncio.get_running_loop().time, [0.0]
    monkeypatch.setattr(loop, "time", lambda: real() + ahead[0])

    def jump(seconds: float) -> None:
        ahead[0] += seconds

    return jump


async def test_visitor_holds_no_more_than_one_may(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(4, 4, per_visitor_running=1, per_visitor_queued=1)
    running = (await controller.admit("ada")).run(request("first"))
    await until(running, Started)
    waiting = (await controller.admit("ada")).run(request("second"))
    await until(waiting, Queued)
    with pytest.raises(VisitorLimit) as refused:
        await controller.admit("ada")
    assert refused.value.retry_after is not None
    assert isinstance(await until((await controller.admit("bob")).run(request("other")), Started), Started)
    backend.jobs[0].end()
    await until(waiting, Started)
    assert await numbers(controller) == (2, 0)


async def test_without_a_queue_the_capped_visitor_is_told_it_is_his_limit(make: Make) -> None:
    controller = await make(4, 0, per_visitor_running=1)
    await controller.admit("ada")
    with pytest.raises(VisitorLimit):
        await controller.admit("ada")


async def test_where_nobody_may_wait_a_newcomer_is_told_that_everyone_is_busy(make: Make) -> None:
    controller = await make(2, 4, per_visitor_running=1, per_visitor_queued=0)
    for visitor in ("ada", "bob"):
        await controller.admit(visitor)
    with pytest.raises(Overloaded):
        await controller.admit("newcomer")
    with pytest.raises(VisitorLimit):
        await controller.admit("ada")
    assert await numbers(controller) == (2, 0)


async def test_visitor_with_many_requests_does_not_hold_up_the_others(make: Make, backend: ScriptedBackend) -> None:
    controller = await make(2, 20, per_visitor_running=2)
    greedy = [(await controller.admit("greedy")).run(request(f"greedy {number}")) for number in range(8)]
    modest = (await controller.admit("modest")).run(request("modest"))
    assert (await until(modest, Queued)).position == 1
    await until(greedy[1], Started)
    backend.jobs[0].end()
    await until(modest, Started)
    assert [job.prompt for job in backend.jobs] == ["greedy 0", "greedy 1", "modest"]


async def test_waiting_too_long_ends_with_its_own_code(
    make: Make, backend: ScriptedBackend, advance: Callable[[float], None]
) -> None:
    controller = await make(1, 2, queue_timeout=30.0)
    running = (await controller.admit("ada")).run(request())
    await until(running, Started)
    waiting = (await controller.admit("bob")).run(request())
    await until(waiting, Queued)
    advance(31.0)
    end = await until(waiting, Finished)
    assert (end.reason, end.code) == ("timeout", "queue_timeout")
    assert (await controller.stats()).finished == {"timeout": 1}
    assert await numbers(controller) == (1, 0)
    assert backend.jobs[0].cancels == 0


async def test_answer_that_takes_too_long_is_cut_and_keeps_its_place_until_it_has_left(
    make: Make, backend: ScriptedBackend, advance: Callable[[float], None]
) -> None:
    controller = await make(1, 1, generation_timeout=60.0)
    running = (await controller.admit("ada")).run(request())
    await until(running, Started)
    advance(61.0)
    await asyncio.wait_for(backend.jobs[0].cancelled.wait(), 5)
    assert await numbers(controller) == (1, 0)
    backend.jobs[0].end("cancelled")
    end = await until(running, Finished)
    assert (end.reason, end.code) == ("timeout", "generation_timeout")


async def test_end_at_the_very_moment_of_the_timeout_stays_what_it_was(
    make: Make, backend: ScriptedBackend, advance: Callable[[float], None]
) -> None:
    controller = await make(1, 1, generation_timeout=60.0)
    running = (await controller.admit("ada")).run(request())
    await until(running, Started)
    backend.jobs[0].end("stop")
    advance(61.0)
    assert (await until(running, Finished)).reason == "stop"
