"""Five hundred people press Enter at once: everyone gets exactly one right answer, and nothing is left behind."""

from __future__ import annotations

import sqlite3

import psutil
import pytest

from llm.backends.synthetic import synthetic_text
from tests.load.crowd import Crowd
from tests.server import Serve
from tests.visitor import Visitor

VISITORS = 500
TOKENS = 25
LEAK_MB = 60
"""What the web process may have grown by after the crowd: transcripts stay for a minute, sessions are cached."""


@pytest.mark.timeout(180)
async def test_crowd_is_answered_whole_and_leaves_nothing_behind(serve: Serve) -> None:
    site = serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=16, LLM_MAX_QUEUE_SIZE=200, LLM_SYNTHETIC_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=100
    )
    assert site.process is not None
    process = psutil.Process(site.process.pid)
    before = process.memory_info().rss
    crowd = Crowd(site.url, VISITORS)
    await crowd.chat()

    assert len(crowd.told) == VISITORS
    whole = synthetic_text(TOKENS)
    for told in crowd.told:
        assert told.end is not None
        assert told.end["reason"] in ("stop", "cancelled")
        assert told.text == whole if told.end["reason"] == "stop" else whole.startswith(told.text)
    assert crowd.refused > 0  # more came than there is room for
    assert crowd.reconnected > VISITORS / 10

    with sqlite3.connect(site.var / "db.sqlite3") as database:
        rows = database.execute(
            "SELECT g.id, g.state, m.text FROM chat_generation g JOIN chat_message m ON m.id = g.answer_id"
        ).fetchall()
    stored = {id: (state, text) for id, state, text in rows}  # an id without hyphens
    assert len(rows) == len(stored) == VISITORS
    for told in crowd.told:
        assert told.end is not None
        assert stored[told.accepted["generation"].replace("-", "")] == (told.end["reason"], told.text)

    stats = await Visitor(site.url).json("/stats")
    assert (stats["processing"], stats["waiting"], stats["accepted"]) == (0, 0, VISITORS)
    assert stats["refused"] == crowd.refused
    assert process.memory_info().rss - before < LEAK_MB * 2**20
