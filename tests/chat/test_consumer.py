"""The socket: every frame answered once, nothing of others, nothing left behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from uuid import UUID, uuid4

import pytest
from channels.testing import WebsocketCommunicator
from django.test import override_settings

from chat.accounts.revalidation import Revalidation
from chat.consumers import ChatConsumer, UnknownSocket
from chat.history.values import Caller
from chat.models import Conversation, Generation, Message
from chat.streams.feed import Feed
from chat.turns.registry import Turns
from chat.wire.writer import FrameWriter
from llm.errors import Overloaded
from llm.events import Delta, Finished, Queued, Started, Status
from tests.chat.conftest import Connect, Socket, a_visitor
from tests.chat.doubles import ScriptedController

pytestmark = pytest.mark.django_db(transaction=True)


async def ask(socket: Socket, text: str = "Hello", **fields: Any) -> dict[str, Any]:
    accepted = await socket.ask("message.send", text=text, **fields)
    assert accepted["type"] == "message.accepted", accepted
    return accepted


async def test_hello_and_status_come_first_and_status_again_on_change(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    controller.status = Status(state="loading", progress=0.25, message="Reading weights")
    async with connect(visitor) as socket:
        hello = await socket.next()
        assert hello == {
            "type": "hello",
            "protocol": 1,
            "model": "scripted",
            "limits": {
                "frame_bytes": 65536,
                "message_chars": 16000,
                "watches": 8,
                "max_new_tokens": 512,
                "system_prompt": "extend",
            },
            "temporary": "optional",
        }
        assert await socket.next() == {
            "type": "status",
            "state": "loading",
            "model": "scripted",
            "defaults": {"temperature": 0.5, "max_new_tokens": 100},
            "progress": 0.25,
            "message": "Reading weights",
        }
        controller.become(Status(state="ready"))
        assert await socket.next() == {
            "type": "status",
            "state": "ready",
            "model": "scripted",
            "defaults": {"temperature": 0.5, "max_new_tokens": 100},
        }


async def test_a_message_is_accepted_streamed_and_ended(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await ask(socket)
        await controller.tickets[0].tell(
            Queued(position=2, size=3), Started(queue_time=0.1), Delta("Hi"), Finished(reason="stop")
        )
        finished = await socket.until("generation.finished")
        mine = [frame for frame in socket.seen if frame.get("generation") == accepted["generation"]]
        assert [frame["type"] for frame in mine] == [
            "message.accepted",
            "generation.started",
            "generation.delta",
            "generation.finished",
        ]
        assert mine[2] == {"type": "generation.delta", "generation": accepted["generation"], "seq": 0, "text": "Hi"}
        assert finished["reason"] == "stop"
        assert set(finished["usage"]) == {"prompt_tokens", "cached_tokens", "completion_tokens", "left_out_turns"}
        assert set(finished["timings"]) == {"queue_time", "ttft", "decode_time", "tokens_per_second"}
        assert "code" not in finished


async def test_the_place_in_the_queue_is_told_on_every_change(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        await ask(socket)
        for place in (2, 1):
            await controller.tickets[0].tell(Queued(position=place, size=2, eta=None))
            queued = await socket.until("generation.queued")
            assert (queued["position"], queued["size"], queued["eta"]) == (place, 2, None)


async def test_bad_frames_are_answered_and_the_socket_stays(connect: Connect, visitor: Caller) -> None:
    async with connect(visitor) as socket:
        for text in ("", "{", "[]", '{"type":"message.send","id":"a","text":7}', "x" * 70_000):
            await socket.send_raw(text=text)
            error = await socket.until("error")
            assert error["code"] == ("too_large" if len(text) > 65536 else "bad_frame")
        await socket.send_raw(bytes=b'{"type":"ping","id":"a"}')
        assert (await socket.until("error"))["code"] == "bad_frame"
        assert (await socket.ask("ping")) == {"type": "pong", "id": socket.seen[-1]["id"]}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "message.send", "text": "  \n "}, "bad_frame"),
        ({"type": "message.send", "text": "x" * 16_001}, "too_large"),
        ({"type": "message.send", "text": "x", "conversation": str(uuid4())}, "not_found"),
        ({"type": "message.send", "text": "x", "parent": str(uuid4())}, "not_found"),
        ({"type": "message.regenerate", "message": str(uuid4())}, "not_found"),
        ({"type": "message.continue", "message": str(uuid4())}, "not_found"),
        ({"type": "generation.stop", "generation": str(uuid4())}, "not_found"),
        ({"type": "conversation.open", "conversation": str(uuid4())}, "not_found"),
    ],
)
async def test_what_cannot_be_done_is_answered_with_its_code(
    connect: Connect, controller: ScriptedController, visitor: Caller, frame: dict[str, Any], code: str
) -> None:
    async with connect(visitor) as socket:
        reply = await socket.ask(**frame)
        assert (reply["type"], reply["code"]) == ("error", code)
    assert await Message.objects.acount() == 0
    assert all(ticket.cancelled for ticket in controller.tickets)


async def test_a_full_house_says_so_and_stores_nothing(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    controller.refuses = Overloaded("All places are taken.", retry_after=3.5, queue_size=64)
    async with connect(visitor) as socket:
        id = await socket.send("message.send", text="Hello")
        error = await socket.until("error")
        assert error == {
            "type": "error",
            "code": "overloaded",
            "message": "All places are taken.",
            "id": id,
            "retry_after": 3.5,
        }
    assert await Message.objects.acount() == 0


async def test_an_unexpected_failure_is_one_reply_without_details(
    connect: Connect, controller: ScriptedController, visitor: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    controller.refuses = ZeroDivisionError("a secret")
    async with connect(visitor) as socket:
        reply = await socket.ask("message.send", text="Hello")
        assert (reply["type"], reply["code"]) == ("error", "error")
        assert "secret" not in reply["message"]
        assert (await socket.ask("ping"))["type"] == "pong"
    assert "secret" in caplog.text


async def test_nothing_waits_behind_a_message_that_is_being_accepted(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        release, admit = asyncio.Event(), controller.admit

        async def slow(key: str) -> object:
            await release.wait()
            return await admit(key)

        controller.admit = slow  # type: ignore[assignment, method-assign]
        waiting = await socket.send("message.send", text="Hello")
        assert (await socket.ask("ping"))["type"] == "pong"
        release.set()
        assert (await socket.until("message.accepted"))["id"] == waiting


async def test_a_frame_sent_twice_is_answered_twice_and_run_once(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as first, connect(visitor) as second:
        one = await ask(first, id="f")
        two = await ask(second, id="f")
        assert one == two
        assert len(controller.tickets) == 1
        await controller.tickets[0].tell(Delta("Hi"), Finished(reason="stop"))
        for socket in (first, second):
            await socket.until("generation.finished")
            assert [frame["text"] for frame in socket.seen if frame["type"] == "generation.delta"] == ["Hi"]


async def test_a_closed_socket_is_no_stop_and_another_goes_on_where_it_was(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await ask(socket)
        await controller.tickets[0].say("one ")
        await socket.until("generation.delta", seq=0)
    await controller.tickets[0].say("two ")
    opening = {"conversation": accepted["conversation"], "generation": accepted["generation"]}
    async with connect(visitor) as again:
        assert (await again.ask("conversation.open", **opening, next_seq=1))["type"] == "ok"
        assert (await again.until("generation.delta"))["seq"] == 1
        async with connect(visitor) as third:
            assert (await third.ask("conversation.open", **opening))["type"] == "ok"
            snapshot = await third.until("generation.snapshot")
            assert (snapshot["text"], snapshot["next_seq"], snapshot["state"]) == ("one two ", 2, "running")
        await controller.tickets[0].tell(Delta("three"), Finished(reason="stop"))
        await again.until("generation.finished")
        assert [frame["seq"] for frame in again.seen if frame["type"] == "generation.delta"] == [1, 2]
    stored = await Message.objects.aget(pk=accepted["answer"])
    assert stored.text == "one two three"


async def test_open_of_an_ended_answer_gives_it_whole(
    connect: Connect, controller: ScriptedController, turns: Turns, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await ask(socket)
        text = "あ" * 60_000
        await controller.tickets[0].tell(Delta(text), Finished(reason="error", code="error", message="Broken."))
        await socket.until("generation.finished")
        turns.hub.remove(UUID(accepted["generation"]))
        opening = {"conversation": accepted["conversation"], "generation": accepted["generation"]}
        assert (await socket.ask("conversation.open", **opening, next_seq=3))["type"] == "ok"
        socket.seen.clear()
        finished = await socket.until("generation.finished")
        assert "".join(frame.get("text", "") for frame in socket.seen) == text
        assert (finished["reason"], finished["code"], finished["message"]) == ("error", "error", "Broken.")


async def test_open_without_a_running_answer_is_ok_and_silent(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        accepted = await ask(socket)
        await controller.tickets[0].tell(Finished(reason="stop"))
        await socket.until("generation.finished")
        socket.seen.clear()
        assert (await socket.ask("conversation.open", conversation=accepted["conversation"]))["type"] == "ok"
        await socket.ask("ping")
        assert {frame["type"] for frame in socket.seen} <= {"ok", "pong", "conversation.changed"}


async def test_stop_works_from_any_socket_of_the_visitor(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket, connect(visitor) as other:
        accepted = await ask(socket)
        assert (await other.ask("generation.stop", generation=accepted["generation"]))["type"] == "ok"
        assert (await socket.until("generation.finished"))["reason"] == "cancelled"
        assert (await other.ask("generation.stop", generation=accepted["generation"]))["type"] == "ok"


async def test_nobody_reads_stops_or_changes_what_is_anothers(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket, connect(a_visitor()) as stranger:
        accepted = await ask(socket, "a secret")
        await controller.tickets[0].say("the answer")
        conversation, generation = accepted["conversation"], accepted["generation"]
        for frame in (
            {"type": "conversation.open", "conversation": conversation},
            {"type": "conversation.open", "conversation": conversation, "generation": generation, "next_seq": 0},
            {"type": "generation.stop", "generation": generation},
            {"type": "message.send", "text": "x", "conversation": conversation},
            {"type": "message.send", "text": "x", "conversation": conversation, "parent": accepted["answer"]},
            {"type": "message.regenerate", "message": accepted["answer"]},
            {"type": "message.continue", "message": accepted["answer"]},
        ):
            reply = await stranger.ask(**frame)
            assert (reply["type"], reply["code"]) == ("error", "not_found")
        await stranger.ask("ping")
        assert {frame["type"] for frame in stranger.seen} == {"hello", "status", "error", "pong"}
        assert not controller.tickets[0].cancelled
    assert await Message.objects.acount() == 2


async def test_the_visitors_other_sockets_hear_of_a_change(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket, connect(visitor) as other, connect(a_visitor()) as stranger:
        await other.until("hello")
        accepted = await ask(socket)
        assert (await other.until("conversation.changed"))["conversation"] == accepted["conversation"]
        await controller.tickets[0].tell(Finished(reason="stop"))
        assert (await other.until("conversation.changed"))["conversation"] == accepted["conversation"]
        await stranger.ask("ping")
        assert "conversation.changed" not in {frame["type"] for frame in stranger.seen}


async def test_two_questions_at_once_in_one_conversation_are_one_answer_and_one_refusal(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as one, connect(visitor) as two:
        conversation = (await ask(one))["conversation"]
        await controller.tickets[0].tell(Delta("1"), Finished(reason="stop"))
        await one.until("generation.finished")
        replies = await asyncio.gather(
            *(socket.ask("message.send", text="again", conversation=conversation) for socket in (one, two))
        )
        assert sorted(reply.get("code", reply["type"]) for reply in replies) == ["message.accepted", "turn_in_progress"]
        assert [ticket.cancelled for ticket in controller.tickets].count(False) == 2
    assert await Message.objects.acount() == 4


@pytest.mark.parametrize("text", ["<::EOS::>", '"}\n{"type":"generation.finished"}', "\u2028\r\n\t\x01", "👩‍👩‍👧 あ"])
async def test_no_text_of_an_answer_breaks_the_frames(
    connect: Connect, controller: ScriptedController, visitor: Caller, text: str
) -> None:
    async with connect(visitor) as socket:
        accepted = await ask(socket, text)
        await controller.tickets[0].tell(Delta(text), Delta("after"), Finished(reason="stop"))
        await socket.until("generation.finished")
        told = [frame["text"] for frame in socket.seen if frame["type"] == "generation.delta"]
        assert "".join(told) == f"{text}after"
    assert (await Message.objects.aget(pk=accepted["answer"])).text == f"{text}after"


async def test_regenerate_answers_again(connect: Connect, controller: ScriptedController, visitor: Caller) -> None:
    async with connect(visitor) as socket:
        first = await ask(socket)
        await controller.tickets[0].tell(Delta("1"), Finished(reason="stop"))
        await socket.until("generation.finished")
        again = await socket.ask("message.regenerate", message=first["answer"])
        assert (again["type"], again["message"]) == ("message.accepted", first["message"])
        assert again["answer"] != first["answer"]
        await controller.tickets[1].tell(Delta("2"), Finished(reason="stop"))
        assert (await socket.until("generation.delta", generation=again["generation"]))["text"] == "2"


async def test_a_cut_off_answer_goes_on_for_everyone_who_watches(
    connect: Connect, controller: ScriptedController, turns: Turns, visitor: Caller
) -> None:
    async with connect(visitor) as socket, connect(visitor) as other:
        first = await ask(socket)
        await controller.tickets[0].tell(Delta("one "), Finished(reason="length"))
        await socket.until("generation.finished")
        more = await socket.ask("message.continue", message=first["answer"])
        assert {name: more[name] for name in ("type", "conversation", "message", "answer")} == {
            name: first[name] for name in ("type", "conversation", "message", "answer")
        }
        assert more["generation"] != first["generation"]
        request = controller.tickets[1].request
        assert request is not None
        assert [(each.role, each.content) for each in request.messages] == [("user", "Hello"), ("assistant", "one ")]
        snapshot = await socket.until("generation.snapshot")
        assert (snapshot["state"], snapshot["text"], snapshot["next_seq"]) == ("queued", "one ", 1)
        await controller.tickets[1].tell(Started(queue_time=0.0), Delta("two"))
        assert (await socket.until("generation.delta"))["seq"] == 1
        await other.ask("conversation.open", conversation=first["conversation"])
        snapshot = await other.until("generation.snapshot")
        assert (snapshot["state"], snapshot["text"], snapshot["next_seq"]) == ("running", "one two", 2)
        await controller.tickets[1].tell(Finished(reason="stop"))
        await socket.until("generation.finished")
        assert (await socket.ask("message.continue", message=first["answer"]))["code"] == "nothing_to_continue"
    assert (await Message.objects.aget(pk=first["answer"])).text == "one two"


async def test_without_a_session_the_socket_is_told_and_closed(connect: Connect) -> None:
    async with connect(None) as socket:
        assert (await socket.next())["code"] == "no_session"
        assert await socket.communicator.receive_output(timeout=5) == {"type": "websocket.close", "code": 4401}
        await socket.send("ping")
        assert await socket.communicator.receive_nothing()


@override_settings(CHAT_SOCKETS_PER_VISITOR="2")
async def test_one_socket_too_many_is_told_and_closed(connect: Connect, visitor: Caller) -> None:
    async with connect(visitor) as first, connect(visitor), connect(a_visitor()) as other:
        async with connect(visitor) as third:
            assert (await third.next())["code"] == "too_many_sockets"
            assert await third.communicator.receive_output(timeout=5) == {"type": "websocket.close", "code": 4429}
            await third.send("ping")
            assert await third.communicator.receive_nothing()
        assert (await other.ask("ping"))["type"] == "pong"
        await first.communicator.disconnect(timeout=5)
        async with connect(visitor) as third:
            assert (await third.next())["type"] == "hello"


@override_settings(CHAT_MESSAGES_PER_MINUTE="1")
async def test_one_message_too_many_is_told_when_to_come_again(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        await ask(socket)
        refused = await socket.ask("message.send", text="again")
        assert (refused["type"], refused["code"]) == ("error", "rate_limited")
        assert 0 < refused["retry_after"] <= 60


async def test_an_unknown_address_is_refused_without_an_error() -> None:
    communicator = WebsocketCommunicator(UnknownSocket.as_asgi(), "/ws/elsewhere/")
    connected, _ = await communicator.connect()
    assert not connected


@override_settings(CHAT_MESSAGE_MAX_CHARS="5", CHAT_WATCHES_PER_SOCKET="1")
async def test_the_limits_are_those_of_the_settings(
    connect: Connect, controller: ScriptedController, visitor: Caller
) -> None:
    async with connect(visitor) as socket:
        limits = (await socket.next())["limits"]
        assert limits == {
            "frame_bytes": 65536,
            "message_chars": 5,
            "watches": 1,
            "max_new_tokens": 512,
            "system_prompt": "extend",
        }
        assert (await socket.ask("message.send", text="123456"))["code"] == "too_large"
        first, second = await ask(socket, "1"), await ask(socket, "2")
        for ticket in controller.tickets:
            await ticket.tell(Delta("x"), Finished(reason="stop"))
        await socket.until("generation.finished", generation=second["generation"])
        told = {frame["generation"] for frame in socket.seen if frame["type"] == "generation.delta"}
        assert told == {second["generation"]}
        assert first["generation"] not in told


@pytest.mark.parametrize("end", ["disconnect", "cancel", "failure"])
async def test_a_socket_leaves_nothing_behind_however_it_ends(
    connect: Connect, controller: ScriptedController, turns: Turns, visitor: Caller, end: str
) -> None:
    before = asyncio.all_tasks()
    async with connect(visitor) as socket:
        accepted = await ask(socket)
        transcript = turns.hub.transcript(UUID(accepted["generation"]))
        assert transcript is not None
        assert transcript.readers
        if end == "cancel":
            socket.communicator.future.cancel()
            await asyncio.wait([socket.communicator.future])
        elif end == "failure":
            await socket.communicator.send_input({"type": "websocket.unheard_of"})
            await asyncio.wait([socket.communicator.future])
            with pytest.raises(AttributeError):
                socket.communicator.future.result()
        else:
            await socket.communicator.disconnect(timeout=5)
        assert not transcript.readers
        assert not turns.hub._feeds
        assert not controller._callbacks
    await controller.tickets[0].tell(Delta("on"), Finished(reason="stop"))
    await asyncio.gather(*turns._running)
    assert asyncio.all_tasks() <= before
    assert (await Generation.objects.aget(pk=accepted["generation"])).state == "stop"
    assert await Conversation.objects.acount() == 1


def alive() -> int:
    """How much of sockets there is in memory."""
    kinds = {ChatConsumer, FrameWriter, Feed, Revalidation}
    return sum(type(each) in kinds for each in gc.get_objects())  # `isinstance` would ask each for its `__class__`


async def test_the_memory_of_a_socket_is_free_as_soon_as_it_ends(connect: Connect, visitor: Caller) -> None:
    """The server makes full collections rare, and each of these holds a connection's buffers."""
    gc.collect()
    before = alive()
    gc.disable()
    try:
        async with connect(visitor) as socket:
            await socket.ask("ping")
            assert alive() > before
        del socket
        assert alive() == before
    finally:
        gc.enable()
