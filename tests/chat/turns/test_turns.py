"""One turn, from its admission to its end, over a scripted controller and the real history."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from django.test import override_settings

from chat.cluster.heartbeat import Heartbeat
from chat.errors import NotFound, TurnInProgress
from chat.history.history import History
from chat.history.values import Accepted, Caller
from chat.models import Generation, Message
from chat.streams.transcript import Transcript
from chat.turns import checkpoints, unwatched
from chat.turns import turn as turn_module
from chat.turns.checkpoints import Checkpoints
from chat.turns.registry import Turns
from chat.turns.turn import Turn
from llm.errors import ContextLengthExceeded, Overloaded, Unavailable
from llm.events import Delta, Finished, Queued, Started, Timings, Usage
from llm.sampling import SamplingParams
from tests.chat.conftest import a_visitor, question
from tests.chat.doubles import FailingHistory, ScriptedController, Timers

pytestmark = pytest.mark.django_db(transaction=True)

PARAMS = SamplingParams()


async def start(turns: Turns, visitor: Caller, **fields: object) -> tuple[Accepted, Transcript]:
    accepted = await turns.start(question(visitor, **fields), PARAMS, 0.0)
    transcript = turns.hub.transcript(accepted.generation)
    assert transcript is not None
    return accepted, transcript


async def until(transcript: Transcript, condition: Callable[[], object]) -> None:
    """Wait as a watcher does until the condition holds."""
    wake = asyncio.Event()
    transcript.join(wake)
    async with asyncio.timeout(10):
        while not condition():
            wake.clear()
            await wake.wait()


async def ended(transcript: Transcript) -> Finished:
    await until(transcript, lambda: transcript.end)
    assert transcript.end is not None
    return transcript.end


async def row(accepted: Accepted) -> tuple[str, str, str]:
    stored = await Generation.objects.select_related("answer").aget(pk=accepted.generation)
    return stored.state, stored.code, stored.answer.text


async def test_a_turn_tells_and_stores_the_same_text(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted, transcript = await start(turns, visitor, text="Hello")
    ticket = controller.tickets[0]
    await ticket.tell(
        Queued(position=1, size=1),
        Started(queue_time=0.5),
        *(Delta(text) for text in ("a", "b\0", "\0", "c")),
        Finished(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=3), timings=Timings(queue_time=0.5)),
    )
    end = await ended(transcript)
    assert end.reason == "stop"
    assert end.usage.completion_tokens == 3
    assert end.timings.ttft is not None
    assert transcript.text == "abc"
    assert await row(accepted) == ("stop", "", "abc")
    assert ticket.request is not None
    assert [message.content for message in ticket.request.messages] == ["Hello"]
    assert ticket.request.conversation == str(accepted.conversation)


async def test_the_first_text_goes_out_at_once_and_later_text_together(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    _, transcript = await start(turns, visitor)
    await controller.tickets[0].say("a", "b", "c", "d")
    await until(transcript, lambda: transcript.text == "abcd")
    assert transcript.deltas == ["a", "bcd"]


async def test_the_row_is_final_before_the_end_is_told(
    turns: Turns, controller: ScriptedController, visitor: Caller, history: FailingHistory
) -> None:
    accepted, transcript = await start(turns, visitor)
    finish, told = history.finish, []

    async def observed(*arguments: object) -> bool:
        told.append(transcript.end)
        stored = await finish(*arguments)  # type: ignore[arg-type]
        told.append(transcript.end)
        return stored

    history.finish = observed  # type: ignore[assignment, method-assign]
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    await ended(transcript)
    assert told == [None, None]
    assert (await row(accepted))[0] == "stop"


@pytest.mark.parametrize("reason", ["stop", "length", "cancelled", "timeout", "error", "interrupted"])
async def test_every_reason_is_one_end_and_one_final_row(
    turns: Turns, controller: ScriptedController, visitor: Caller, reason: str
) -> None:
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].tell(Delta("so far"), Finished(reason=reason, code="c", message="m"))  # type: ignore[arg-type]
    assert (await ended(transcript)).reason == reason
    assert await row(accepted) == (reason, "c", "so far")


async def test_a_ticket_that_cannot_run_ends_with_its_error(
    turns: Turns, controller: ScriptedController, visitor: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    admit = controller.admit

    async def failing(error: Exception) -> None:
        async def admitted(key: str) -> object:
            ticket = await admit(key)
            ticket.fails = error
            return ticket

        controller.admit = admitted  # type: ignore[assignment, method-assign]

    await failing(ContextLengthExceeded("Too long by 12 tokens."))
    accepted, transcript = await start(turns, visitor)
    assert (await ended(transcript)).message == "Too long by 12 tokens."
    assert (await row(accepted))[:2] == ("error", "context_length_exceeded")
    assert not caplog.records

    await failing(ZeroDivisionError("a secret"))
    accepted, transcript = await start(turns, visitor)
    end = await ended(transcript)
    assert (end.reason, end.code) == ("error", "error")
    assert "secret" not in (end.message or "")
    assert (await row(accepted))[0] == "error"
    assert len(caplog.records) == 1


async def test_stop_ends_it_and_keeps_the_text(turns: Turns, controller: ScriptedController, visitor: Caller) -> None:
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].say("so far")
    await turns.stop(visitor, accepted.generation)
    await turns.stop(visitor, accepted.generation)
    assert (await ended(transcript)).reason == "cancelled"
    assert await row(accepted) == ("cancelled", "", "so far")
    await turns.stop(visitor, accepted.generation)


async def test_stop_of_anothers_generation_is_not_found(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted, _ = await start(turns, visitor)
    with pytest.raises(NotFound):
        await turns.stop(a_visitor(), accepted.generation)
    assert not controller.tickets[0].cancelled


async def test_the_end_of_the_process_stores_the_text_as_interrupted(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].say("a", "b", "c")
    await until(transcript, lambda: transcript.deltas)
    await turns.aclose()
    assert await row(accepted) == ("interrupted", "interrupted", "abc")
    assert transcript.text == "abc"
    assert transcript.end is not None
    assert transcript.end.reason == "interrupted"
    assert controller.tickets[0].cancelled


@pytest.mark.parametrize("refusal", [Overloaded("Full.", retry_after=2), Unavailable("Loading.")])
async def test_a_refused_message_leaves_nothing(
    turns: Turns, controller: ScriptedController, visitor: Caller, refusal: Exception
) -> None:
    controller.refuses = refusal
    with pytest.raises(type(refusal)):
        await turns.start(question(visitor), PARAMS, 0.0)
    assert await Message.objects.acount() == 0


async def test_a_repeated_frame_takes_no_place(turns: Turns, controller: ScriptedController, visitor: Caller) -> None:
    first, _ = await start(turns, visitor, request_id="f")
    controller.refuses = Overloaded("Full.")
    again = await turns.start(question(visitor, request_id="f"), PARAMS, 0.0)
    assert (again.generation, again.new) == (first.generation, False)
    assert len(controller.tickets) == 1


async def test_the_same_frame_at_once_runs_once_and_gives_the_other_places_back(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    asked = [question(visitor, request_id="f") for _ in range(4)]
    results = await asyncio.gather(*(turns.start(each, PARAMS, 0.0) for each in asked))
    assert len({each.generation for each in results}) == 1
    assert sum(not ticket.cancelled for ticket in controller.tickets) == 1
    assert await Generation.objects.acount() == 1
    live = [each for each in asked if turns.hub.transcript(each.generation) is not None]
    assert [each.generation for each in live] == [results[0].generation]


async def test_a_second_turn_of_a_conversation_is_refused_and_its_place_given_back(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    first, _ = await start(turns, visitor)
    with pytest.raises(TurnInProgress):
        await start(turns, visitor, conversation=first.conversation)
    assert [ticket.cancelled for ticket in controller.tickets] == [False, True]


async def test_who_asks_may_go_away_while_the_message_is_being_accepted(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    asked = question(visitor, request_id="f")
    asking = asyncio.create_task(turns.start(asked, PARAMS, 0.0))
    await controller.admitted.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()
    transcript = turns.hub.transcript(asked.generation)
    assert transcript is not None
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    await ended(transcript)
    accepted = await turns.history.accepted(visitor, "f")
    assert accepted is not None
    assert await row(accepted) == ("stop", "", "a")


async def test_the_end_is_stored_when_the_database_is_back(
    turns: Turns, controller: ScriptedController, visitor: Caller, history: FailingHistory
) -> None:
    history.failures = 2
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    assert (await ended(transcript)).reason == "stop"
    assert await row(accepted) == ("stop", "", "a")


async def test_an_end_that_cannot_be_stored_is_told_as_what_it_will_be(
    turns: Turns,
    controller: ScriptedController,
    visitor: Caller,
    history: FailingHistory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn_module, "STORE_SECONDS", 0.0)
    history.failures = 1_000
    _, transcript = await start(turns, visitor)
    await controller.tickets[0].tell(Finished(reason="stop"))
    assert (await ended(transcript)).reason == "interrupted"


async def test_an_end_that_is_refused_is_said_and_told_at_once(
    turns: Turns,
    controller: ScriptedController,
    visitor: Caller,
    history: FailingHistory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refused(*arguments: object) -> None:
        raise ValueError("not a text")

    history.finish = refused  # type: ignore[assignment, method-assign]
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    assert (await ended(transcript)).reason == "interrupted"
    assert "could not be stored" in caplog.text
    assert turns.hub.transcript(accepted.generation) is None  # so that the next beat ends the row
    heart = Heartbeat(lambda generation: turns.hub.transcript(generation) is not None, turns.hub.announce)
    await heart.beat()
    await heart.aclose()
    assert (await row(accepted))[0] == "interrupted"


async def test_a_turn_presumed_dead_cannot_write_a_second_end(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted, transcript = await start(turns, visitor)
    await Generation.objects.filter(pk=accepted.generation).aupdate(state="interrupted")
    await controller.tickets[0].tell(Delta("late"), Finished(reason="stop"))
    assert (await ended(transcript)).reason == "interrupted"
    assert await row(accepted) == ("interrupted", "", "")


async def test_watch_finds_the_running_turn_its_row_later_and_nothing_of_others(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted, transcript = await start(turns, visitor)
    assert await turns.watch(visitor, accepted.conversation, None) is transcript
    assert await turns.watch(visitor, accepted.conversation, accepted.generation) is transcript
    with pytest.raises(NotFound):
        await turns.watch(a_visitor(), accepted.conversation, accepted.generation)
    await controller.tickets[0].tell(Delta("text"), Finished(reason="length"))
    await ended(transcript)
    turns.hub.remove(accepted.generation)
    stored = await turns.watch(visitor, accepted.conversation, accepted.generation)
    assert stored is not None
    assert (stored.text, stored.state) == ("text", "length")
    assert await turns.watch(visitor, accepted.conversation, None) is None


async def test_text_is_stored_while_it_is_being_written(
    turns: Turns,
    controller: ScriptedController,
    visitor: Caller,
    history: FailingHistory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    accepted, _ = await start(turns, visitor)
    other, _ = await start(turns, visitor)
    await controller.tickets[0].tell(Started(queue_time=0.0), Delta("so far"))
    await controller.tickets[1].say("beside it")
    while len(stored := await history.checkpoints.get()) < 2:
        pass
    assert stored == {accepted.generation: "so far", other.generation: "beside it"}
    assert (await row(accepted))[2] == "so far"
    assert await History(process=uuid4()).recover() == 2
    assert (await row(other)) == ("interrupted", "interrupted", "beside it")


async def test_a_turn_that_is_another_process_s_ends_at_once_and_writes_nothing(
    turns: Turns,
    controller: ScriptedController,
    visitor: Caller,
    history: FailingHistory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].say("a")
    await history.checkpoints.get()
    await History(process=uuid4()).recover()
    await controller.tickets[0].say("b")
    assert (await ended(transcript)).reason == "interrupted"
    assert await row(accepted) == ("interrupted", "interrupted", "a")
    assert controller.tickets[0].cancelled


async def test_a_database_that_is_away_ends_no_turn_and_loses_no_text(
    turns: Turns,
    controller: ScriptedController,
    visitor: Caller,
    history: FailingHistory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    accepted, transcript = await start(turns, visitor)
    history.failures = 5
    await controller.tickets[0].say("a")
    assert await history.checkpoints.get() == {accepted.generation: "a"}
    assert history.failures == 0
    assert len(caplog.records) == 1
    assert transcript.end is None
    await controller.tickets[0].tell(Delta("b"), Finished(reason="stop"))
    assert (await ended(transcript)).reason == "stop"
    assert await row(accepted) == ("stop", "", "ab")


async def test_a_turn_interrupted_before_its_first_step_gives_its_place_back(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted = await turns.history.accept(question(visitor))
    ticket, transcript = await controller.admit(str(visitor.visitor)), Transcript(accepted.generation)
    turn = Turn(accepted.store, turns.hub, Checkpoints(), accepted, ticket, transcript, 0.0)
    turn.interrupt()
    await turn.run(PARAMS)
    assert ticket.cancelled
    assert transcript.end is not None
    assert await row(accepted) == ("interrupted", "interrupted", "")


async def test_the_end_of_the_process_leaves_an_end_that_is_being_stored_as_it_is(
    turns: Turns, controller: ScriptedController, visitor: Caller, history: FailingHistory
) -> None:
    accepted, transcript = await start(turns, visitor)
    finish, storing, release = history.finish, asyncio.Event(), asyncio.Event()

    async def slow(*arguments: object) -> bool:
        storing.set()
        await release.wait()
        return await finish(*arguments)  # type: ignore[arg-type]

    history.finish = slow  # type: ignore[assignment, method-assign]
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    await storing.wait()
    closing = asyncio.create_task(turns.aclose())
    release.set()
    await closing
    assert transcript.end is not None
    assert transcript.end.reason == "stop"
    assert await row(accepted) == ("stop", "", "a")


@override_settings(CHAT_UNWATCHED_SECONDS="0.001")
async def test_a_waiting_turn_that_nobody_watches_gives_up_its_place(
    turns: Turns, controller: ScriptedController, visitor: Caller
) -> None:
    accepted = await turns.start(question(visitor), PARAMS, 0.0)
    await controller.tickets[0].tell(Queued(position=1, size=1))
    await asyncio.gather(*turns._running)
    assert controller.tickets[0].cancelled
    assert await row(accepted) == ("timeout", "unwatched", "")


async def test_a_turn_keeps_its_place_while_someone_watches_and_once_it_runs(
    turns: Turns, controller: ScriptedController, visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers()
    monkeypatch.setattr(unwatched, "later", timers.later)
    accepted, transcript = await start(turns, visitor)
    await controller.tickets[0].running.wait()
    assert timers.running == [120.0]
    reader, other = asyncio.Event(), asyncio.Event()
    transcript.join(reader)
    transcript.join(other)
    transcript.leave(reader)
    assert timers.running == []
    transcript.leave(other)
    assert timers.running == [120.0]
    await controller.tickets[0].tell(Started(queue_time=1.0))
    await until(transcript, lambda: transcript.started)
    transcript.readers.clear()
    transcript.on_watched(False)
    assert timers.running == []
    await controller.tickets[0].tell(Delta("a"), Finished(reason="stop"))
    assert (await ended(transcript)).reason == "stop"
    assert await row(accepted) == ("stop", "", "a")


async def test_an_end_on_its_way_when_patience_ends_stays_what_it_is(
    turns: Turns, controller: ScriptedController, visitor: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = Timers()
    monkeypatch.setattr(unwatched, "later", timers.later)
    accepted, transcript = await start(turns, visitor)
    ticket = controller.tickets[0]
    await ticket.running.wait()
    ticket.stream.push(Finished(reason="error", code="context_length_exceeded", message="m"))
    ticket.cancelled = True  # nothing follows an end
    timers.ring()
    assert (await ended(transcript)).reason == "error"
    assert await row(accepted) == ("error", "context_length_exceeded", "")
