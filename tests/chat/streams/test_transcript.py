from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from chat.streams.transcript import Transcript, Watch
from chat.wire.codec import encode
from chat.wire.frames import MAX_FRAME_BYTES, GenerationDelta, GenerationFinished, GenerationSnapshot
from llm.events import Delta, Finished, Queued, Started


def types(watch: Watch) -> list[str]:
    return [type(frame).__name__ for frame in watch.frames()]


def transcript(*events: Delta | Finished | Queued | Started) -> Transcript:
    made = Transcript(uuid4())
    for event in events:
        made.push(event)
    return made


def text_of(watch: Watch) -> str:
    """What a page would show, if every number is the one it expects."""
    text, next_seq = "", 0
    for frame in watch.frames():
        if isinstance(frame, GenerationSnapshot):
            text, next_seq = frame.text, frame.next_seq
        elif isinstance(frame, GenerationDelta):
            assert frame.seq == next_seq
            text, next_seq = text + frame.text, next_seq + 1
    return text


def test_watch_from_the_start_gets_every_event_once() -> None:
    source = transcript(Queued(position=2, size=2))
    watch = Watch(source, asyncio.Event(), 0)
    assert types(watch) == ["GenerationQueued"]
    assert types(watch) == []
    source.push(Queued(position=1, size=1))
    assert types(watch) == ["GenerationQueued"]
    source.push(Started(queue_time=1.0))
    source.push(Delta("a"))
    source.push(Delta("b"))
    assert types(watch) == ["GenerationStarted", "GenerationDelta", "GenerationDelta"]
    source.push(Finished(reason="stop"))
    assert types(watch) == ["GenerationFinished"]
    assert types(watch) == []
    assert watch.done


def test_watch_without_a_number_begins_with_a_snapshot() -> None:
    source = transcript(Started(queue_time=0), Delta("a"), Delta("b"))
    first = next(Watch(source, asyncio.Event()).frames())
    assert isinstance(first, GenerationSnapshot)
    assert (first.state, first.text, first.next_seq) == ("running", "ab", 2)


def test_watch_with_a_number_gets_what_is_missing_and_nothing_else() -> None:
    source = transcript(Started(queue_time=0), Delta("a"), Delta("b"), Delta("c"))
    assert [f.text for f in Watch(source, asyncio.Event(), 1).frames() if isinstance(f, GenerationDelta)] == ["b", "c"]


def test_watch_with_a_number_nobody_gave_out_begins_with_a_snapshot() -> None:
    assert types(Watch(transcript(Delta("a")), asyncio.Event(), 2)) == ["GenerationSnapshot"]


def test_what_arrives_between_two_frames_is_not_lost() -> None:
    source = transcript(Delta("a"))
    frames = Watch(source, asyncio.Event(), 0).frames()
    assert isinstance(next(frames), GenerationDelta)
    source.push(Delta("b"))
    source.push(Finished(reason="stop"))
    assert [type(frame) for frame in frames] == [GenerationDelta, GenerationFinished]


@pytest.mark.parametrize("character", ["x", "あ", "𝄞", "\x01", '"'])
def test_no_frame_is_larger_than_allowed_however_text_is_written(character: str) -> None:
    text = character * 100_000
    source = transcript(Delta(text), Delta("end"))
    sizes = [len(encode(frame)) for frame in Watch(source, asyncio.Event()).frames()]
    assert max(sizes) <= MAX_FRAME_BYTES
    assert text_of(Watch(source, asyncio.Event())) == text + "end"


def test_what_is_sent_grows_with_the_answer_and_no_faster() -> None:
    def sent(tokens: int) -> int:
        source = transcript(*(Delta(" token") for _ in range(tokens)), Finished(reason="stop"))
        return sum(len(encode(frame)) for frame in Watch(source, asyncio.Event(), 0).frames())

    assert sent(800) < 2.02 * sent(400) < 2.02 * 400 * 150


def test_a_long_snapshot_is_its_first_part_and_then_deltas() -> None:
    source = transcript(*(Delta("x" * 1000) for _ in range(100)), Finished(reason="length"))
    frames = list(Watch(source, asyncio.Event()).frames())
    snapshot = frames[0]
    assert isinstance(snapshot, GenerationSnapshot)
    assert 0 < snapshot.next_seq < 100
    assert snapshot.state == "running"
    assert isinstance(frames[1], GenerationDelta)
    assert frames[1].seq == snapshot.next_seq
    assert isinstance(frames[-1], GenerationFinished)


def test_a_stored_answer_reads_like_one_that_ended() -> None:
    stored = Transcript.of_stored(uuid4(), "text", Finished(reason="cancelled"))
    frames = list(Watch(stored, asyncio.Event()).frames())
    assert isinstance(frames[0], GenerationSnapshot)
    assert (frames[0].state, frames[0].text) == ("cancelled", "text")
    assert [type(frame) for frame in frames] == [GenerationSnapshot, GenerationFinished]


def test_push_wakes_the_readers_that_are_there() -> None:
    source, wake = transcript(), asyncio.Event()
    watch = Watch(source, wake, 0)
    wake.clear()
    source.push(Delta("a"))
    assert wake.is_set()
    watch.leave()
    wake.clear()
    source.push(Delta("b"))
    assert not wake.is_set()
