from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from chat.streams import hub as hub_module
from chat.streams.feed import Feed
from chat.streams.hub import Hub
from chat.streams.transcript import Transcript
from chat.wire.frames import ConversationChanged, GenerationDelta
from llm.events import Delta, Finished


def running(text: str = "a") -> Transcript:
    transcript = Transcript(uuid4())
    transcript.push(Delta(text))
    return transcript


def feed_of(watches: int) -> Feed:
    """One that nobody waits for."""
    return Feed(watches, lambda: None)


def test_feed_wakes_its_socket_and_gives_what_is_due() -> None:
    woken: list[str] = []
    feed, transcript = Feed(8, lambda: woken.append("woken")), running()
    feed.follow(transcript, 0)
    assert woken.pop()
    assert [type(frame) for frame in feed.frames()] == [GenerationDelta]
    assert not woken
    transcript.push(Delta("b"))
    assert woken.pop()
    assert [frame.text for frame in feed.frames() if isinstance(frame, GenerationDelta)] == ["b"]


def test_feed_says_only_the_latest_of_a_notice() -> None:
    feed, conversation = feed_of(8), uuid4()
    for _ in range(3):
        feed.notice(conversation, ConversationChanged(conversation=conversation))
    assert len(list(feed.frames())) == 1


def test_feed_drops_its_oldest_watch_beyond_the_limit() -> None:
    feed = feed_of(2)
    transcripts = [running() for _ in range(3)]
    for transcript in transcripts:
        feed.follow(transcript, 0)
    assert [bool(transcript.readers) for transcript in transcripts] == [False, True, True]


def test_feed_lets_go_of_what_has_ended_and_of_all_when_closed() -> None:
    feed, ended, lasting = feed_of(2), running(), running()
    feed.follow(ended, 0)
    feed.follow(lasting, 0)
    ended.push(Finished(reason="stop"))
    list(feed.frames())
    assert not ended.readers
    assert lasting.readers
    feed.close()
    assert not lasting.readers


def test_hub_tells_a_visitors_sockets_only() -> None:
    hub, mine, other = Hub(), feed_of(1), feed_of(1)
    visitor, conversation = uuid4(), uuid4()
    leave = hub.join(visitor, mine, lambda: None)
    hub.join(uuid4(), other, lambda: None)
    hub.announce(visitor, conversation)
    assert list(mine.frames()) == [ConversationChanged(conversation=conversation)]
    assert list(other.frames()) == []
    leave()
    leave()
    hub.announce(visitor, conversation)
    assert list(mine.frames()) == []


async def test_hub_keeps_an_ended_turn_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, transcript = Hub(), running()
    stopped: list[bool] = []
    hub.add(transcript, lambda: stopped.append(True))
    assert hub.transcript(transcript.generation) is transcript
    hub.stop(transcript.generation)
    assert stopped == [True]
    removed = asyncio.Event()
    monkeypatch.setattr(hub_module, "KEEP_SECONDS", 0)
    hub.retire(transcript.generation)
    asyncio.get_running_loop().call_later(0, removed.set)  # after it, in the order of the loop's timers
    assert hub.transcript(transcript.generation) is transcript
    await removed.wait()
    assert hub.transcript(transcript.generation) is None
    hub.stop(transcript.generation)  # nothing to stop, nothing happens
