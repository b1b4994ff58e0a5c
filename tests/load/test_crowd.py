"""Five hundred people press Enter at once: everyone gets exactly one right answer, and nothing is left behind."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import psutil
import pytest

from llm.backends.synthetic import synthetic_text
from tests.load.crowd import Crowd
from tests.server import Serve, Site
from tests.visitor import Visitor

VISITORS = 500
TOKENS = 25
WARM_MB = 60
"""What the web process may grow by with its first crowd: transcripts stay for a minute, sessions are cached."""
LEAK_MB = 15
"""What it may grow by with all later ones, once the transcripts of the first are gone."""

LIMITS = {
    "LLM_NUM_OF_CONCURRENT_EXECUTIONS": 16,
    "LLM_MAX_QUEUE_SIZE": 200,
    "LLM_SYNTHETIC_TOKENS": TOKENS,
    "LLM_SYNTHETIC_RATE": 100,
}


def web(site: Site) -> psutil.Process:
    assert site.process is not None
    return psutil.Process(site.process.pid)


def connections_fall_to(process: psutil.Process, count: int) -> None:
    deadline = time.monotonic() + 20
    while len(process.net_connections("tcp")) > count:
        assert time.monotonic() < deadline, "connections are left behind"
        time.sleep(0.05)


def megabytes(site: Site) -> float:
    return web(site).memory_info().rss / 2**20


def check_answers(site: Site, crowd: Crowd) -> None:
    """One final row for each accepted message, with the text that its visitor saw."""
    assert len(crowd.told) == crowd.size
    whole = synthetic_text(TOKENS)
    with sqlite3.connect(site.var / "db.sqlite3") as database:
        rows = database.execute(
            "SELECT g.id, g.state, m.text FROM chat_generation g JOIN chat_message m ON m.id = g.answer_id"
        ).fetchall()
    stored = {id: (state, text) for id, state, text in rows}  # an id without hyphens
    assert len(rows) == len(stored)
    for told in crowd.told:
        assert told.end is not None
        assert told.end["reason"] in ("stop", "cancelled")
        assert told.text == whole if told.end["reason"] == "stop" else whole.startswith(told.text)
        assert stored[told.accepted["generation"].replace("-", "")] == (told.end["reason"], told.text)


async def check_places(site: Site, crowds: list[Crowd]) -> None:
    """All free, and every refusal and every acceptance counted."""
    stats = await Visitor(site.url).json("/stats")
    accepted = sum(len(crowd.told) for crowd in crowds)
    assert (stats["processing"], stats["waiting"], stats["accepted"]) == (0, 0, accepted)
    assert stats["refused"] == sum(crowd.refused for crowd in crowds)


@pytest.mark.timeout(180)
async def test_crowd_is_answered_whole_and_leaves_nothing_behind(serve: Serve) -> None:
    site = serve(**LIMITS)
    connections, before = len(web(site).net_connections("tcp")), megabytes(site)
    crowd = Crowd(site.url, VISITORS)
    await crowd.chat()
    check_answers(site, crowd)
    await check_places(site, [crowd])
    assert crowd.refused > 0  # more came than there is room for
    assert crowd.reconnected > VISITORS / 10
    assert megabytes(site) - before < WARM_MB
    await asyncio.to_thread(connections_fall_to, web(site), connections)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_crowd_after_crowd_leaves_memory_where_it_was(serve: Serve) -> None:
    """Thousands of messages; the transcripts of the last crowd but one are gone by the next look."""
    site = serve(**LIMITS)
    crowds: list[Crowd] = []
    base = 0.0
    for seed in range(1, 11):
        crowds.append(Crowd(site.url, VISITORS, seed))
        await crowds[-1].chat()
        check_answers(site, crowds[-1])
        await check_places(site, crowds)
        if seed == 3:
            await asyncio.sleep(65)  # the minute for which transcripts are kept
            base = megabytes(site)
    await asyncio.sleep(65)
    grown = megabytes(site) - base
    print(f"{sum(len(crowd.told) for crowd in crowds)} messages; since the third crowd: {grown:+.1f} MiB")
    assert grown < LEAK_MB
