"""The measurements measure: short forms, on whatever machine, without a figure of speed."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from llm.backends.synthetic import synthetic_text
from tests.load import delivery, frames, idle
from tests.load.sites import bare
from tests.server import Serve

STREAMS, TOKENS, RATE = 20, 60, 25.0
KIB = 1024
Place = tuple[str, psutil.Process]


@pytest.fixture(scope="module")
def chat(serve: Serve) -> Place:
    site = serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=STREAMS,
        LLM_SYNTHETIC_TOKENS=TOKENS,
        LLM_SYNTHETIC_RATE=RATE,
        CHAT_SOCKETS_PER_VISITOR=100,
    )
    assert site.process is not None
    return site.url, psutil.Process(site.process.pid)


@pytest.fixture(scope="module")
def plain() -> Iterator[Place]:
    with bare() as place:
        yield place


async def test_every_token_of_every_stream_arrives_once(chat: Place) -> None:
    found = await delivery.measure(*chat, STREAMS, RATE)
    for stream in found.streams:
        assert [number for _, number in stream.tokens] == [int(number) for number in synthetic_text(TOKENS).split()]
    assert 0 < len(found.delays) <= STREAMS * TOKENS
    assert found.delays == sorted(found.delays)


async def test_frames_are_counted_alike_on_both_sides(chat: Place, plain: Place) -> None:
    theirs = await frames.of_bare(*plain, 5, 100)
    ours = await frames.of_chat(*chat, 5, 3)
    assert theirs.frames == 5 * 100
    assert ours.frames % (5 * 3) == 0
    assert ours.frames > 5 * 3 * 10
    assert min(theirs.used, ours.used) >= 0


@pytest.mark.timeout(120)
async def test_an_idle_chat_is_small(chat: Place, plain: Place) -> None:
    theirs = await idle.of_sockets(plain[0], "/", plain[1], 200, visitors=False)
    ours = await idle.of_sockets(chat[0], "/ws/chat/", chat[1], 200, visitors=True)
    print(f"bare {theirs / KIB:.0f} KiB, open chat {ours / KIB:.0f} KiB")
    assert ours < 100 * KIB
