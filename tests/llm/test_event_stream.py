"""The stream between a producer and one reader."""

from __future__ import annotations

import asyncio

import pytest

from llm.event_stream import EventStream
from llm.events import Delta, Event, Finished, Queued


async def test_unread_place_is_replaced_by_the_newer_one() -> None:
    stream = EventStream(lambda: None)
    for position in (3, 2, 1):
        stream.push(Queued(position=position, size=3))
    stream.push(Delta("a"))
    stream.push(Finished(reason="stop"))
    assert [event async for event in stream] == [Queued(position=1, size=3), Delta("a"), Finished(reason="stop")]


async def test_reader_waits_for_what_is_pushed_later() -> None:
    stream = EventStream(lambda: None)
    reading = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.push(Delta("late"))
    assert await reading == Delta("late")


async def test_leaving_cancels_only_before_the_end() -> None:
    cancelled = []
    for ended in (False, True):
        async with EventStream(lambda ended=ended: cancelled.append(ended)) as stream:  # type: ignore[misc]
            stream.push(Finished(reason="stop") if ended else Delta("a"))
            await anext(stream)
    assert cancelled == [False]


async def test_events_are_handed_over_on_the_spot_from_the_first_one_on() -> None:
    stream, taken = EventStream(lambda: None), list[Event]()
    stream.push(Delta("a"))
    reading = asyncio.create_task(stream.into(taken.append))
    await asyncio.sleep(0)
    assert taken == [Delta("a")]
    stream.push(Delta("b"))
    assert taken == [Delta("a"), Delta("b")]
    stream.push(Finished(reason="stop"))
    assert stream.ended
    assert await reading == Finished(reason="stop")
    assert len(taken) == 2


async def test_a_taker_that_fails_fails_alone() -> None:
    def fail(event: Event) -> None:
        failed.append(event)
        raise ZeroDivisionError

    failed, cancelled = list[Event](), list[bool]()
    async with EventStream(lambda: cancelled.append(True)) as stream:
        stream.push(Delta("a"))
        with pytest.raises(ZeroDivisionError):
            await stream.into(fail)
    stream.push(Delta("b"))
    stream.push(Finished(reason="cancelled"))
    assert (failed, cancelled) == ([Delta("a")], [True])
