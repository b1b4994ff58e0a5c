"""What is wrong with one frame is the end of its request, and of nothing else on that connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llm.conf import Settings
from llm.errors import InvalidRequest
from llm.events import Delta, Event, Finished
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams
from llm.service import server, wire
from llm.service.address import Address
from llm.service.client import ServiceClient
from llm.service.launch import connect
from tests.llm.scripted import ScriptedBackend, request
from tests.llm.service.clients import NewClient, answer, becomes, serving, started, text_of


def asking(text: str = "/echo fine", **params: Any) -> GenerationRequest:
    return GenerationRequest(messages=(ChatMessage("user", text),), params=SamplingParams(**params))


async def events_of(client: ServiceClient, asked: GenerationRequest) -> list[Event]:
    async with (await client.admit("ada")).run(asked) as events:
        return [event async for event in events]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (asking("x" * 30_000), "can be sent at once"),
        (asking(stop=("\ud800",)), "surrogates"),
        (asking(seed=2**70), "ints"),
        (asking(temperature=9.0), "temperature"),
        (asking(logit_bias={"1": 1.0}), "logit_bias"),
        (asking(stop=("",)), "stop"),
    ],
    ids=["too large", "no text", "no number", "out of range", "of another type", "in a list"],
)
async def test_a_request_that_cannot_be_sent_or_read_ends_alone(
    client: NewClient, monkeypatch: pytest.MonkeyPatch, asked: GenerationRequest, says: str
) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME", 20_000)
    one = client(synthetic_tokens=100, synthetic_rate=100.0, num_of_concurrent_executions=2, max_queue_size=0)
    await becomes(one, "ready")
    other = await started(one)
    end = (await events_of(one, asked))[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.code) == ("error", InvalidRequest.code)
    assert end.message is not None
    assert says in end.message
    assert (await answer(one, "/echo fine"))[-1].reason == "stop"  # the place is free again
    assert [event async for event in other][-1].reason == "stop"


async def test_a_visitor_whose_name_cannot_be_sent_is_refused_alone(client: NewClient) -> None:
    one = client()
    await becomes(one, "ready")
    other = await started(one)
    for visitor in ("\udcff", 7):
        with pytest.raises(InvalidRequest):
            await one.admit(visitor)  # type: ignore[arg-type]
    assert [event async for event in other][-1].reason == "stop"


async def test_an_event_that_cannot_be_sent_ends_its_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    backend = ScriptedBackend()
    monkeypatch.setattr(server, "make_backend", lambda settings: backend)
    monkeypatch.setattr(wire, "MAX_FRAME", 4_000)
    address = Address(path=tmp_path / "llm.sock")
    async with serving(Settings(var=str(tmp_path)), address):
        one = ServiceClient(Settings(service=str(address)))
        await becomes(one, "ready")
        streams = [await started(one), await started(one)]
        first, second = backend.jobs
        for text in ("a" * 1_500, "a" * 5_000, "b"):  # they are sent at once, and more than one frame takes
            first.say(text)
            second.say(text[:1_500])
        ends = [[event async for event in streams[0]][-1]]
        await first.cancelled.wait()
        first.end("cancelled")
        second.end()
        events = [event async for event in streams[1]]
        assert isinstance(ends[0], Finished)
        assert (ends[0].reason, ends[0].code) == ("error", "error")
        assert text_of(events) == "a" * 3_000 + "b"
        assert events[-1].reason == "stop"
        assert (await one.stats()).processing == 0
        await one.aclose()
    assert "An event of a generation cannot be sent" in caplog.text


async def test_a_frame_that_makes_no_sense_is_told_from_one_that_fails(client: NewClient) -> None:
    """Numbers that no place has, places that are used twice."""
    one = client()
    await becomes(one, "ready")
    streams = await connect(one._settings)
    assert streams is not None
    reader, writer = streams
    frames = wire.read_frames(reader, wire.service_frames)
    writer.write(wire.encode(wire.Login("")))
    assert isinstance(await anext(frames), wire.Hello)
    writer.write(wire.encode(wire.Run(5, request())))
    assert isinstance(await anext(frames), wire.Refused)
    events = await anext(frames)
    assert isinstance(events, wire.Events)
    assert [(number, type(event)) for number, event in events.events] == [(5, Finished)]
    writer.write(wire.encode(wire.Admit(6, "eve")) + wire.encode(wire.Run(6, request("/echo six"))))
    assert isinstance(await anext(frames), wire.Admitted)
    told: list[Event] = []
    while not told or not isinstance(told[-1], Finished):
        frame = await anext(frames)
        assert isinstance(frame, wire.Events)
        told += [event for _, event in frame.events]
    assert "".join(event.text for event in told if isinstance(event, Delta)) == "six"
    writer.write(b"\x00\x00\x00\x02\xc1\xc1")
    assert [frame async for frame in frames] == []
    writer.close()
    assert (await answer(one, "/echo fine"))[-1].reason == "stop"
