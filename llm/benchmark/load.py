"""Takes measurements with many chats on a target. Each raises RequestError if the target refuses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

from llm.benchmark.chat import Chat, Chats
from llm.benchmark.report import Row, share
from llm.benchmark.target import Target
from llm.request import ChatMessage

SHORT, LONG = 40, 4000
BESIDE = 15
GAP_CHATS, GAP_PROMPT, GAP_TOKENS = 8, 2000, 24
CANCELLED = 5


async def throughput(target: Target, count: int, context: int, tokens: int) -> Row:
    """Measure chats that arrive at once, each of which gets that many tokens while all are in decode."""
    async with Chats() as chats:
        for number in range(count):
            chats.add(target.chat(number, context))
        await chats.begun()
        await chats.more(tokens)
        ttfts = [chat.ttft for chat in chats]
        values = {
            "tokens_per_second": chats.rate,
            "each": chats.rate / count,
            "ttft_p50": statistics.median(ttfts),
            "ttft_p95": share(ttfts, 0.95),
        }
    return Row("throughput", {"chats": count, "context": context}, values)


async def mixed(target: Target, tokens: int) -> Row:
    """Measure short chats beside a long one, which is there first."""
    length = min(LONG, target.context // 2) if target.context else LONG
    async with Chats() as chats:
        chats.add(target.chat(0, length))
        await chats.begun()
        for number in range(1, BESIDE + 1):
            chats.add(target.chat(number, SHORT))
        await chats.begun()
        await chats.more(tokens)
        return Row("mixed", {"short": BESIDE, "long": length}, {"tokens_per_second": chats.rate})


async def turns(target: Target, history: int) -> Row:
    """Measure the second turn of a conversation whose first one had that many tokens."""
    conversation = f"turns-{history}"
    messages = [ChatMessage("user", f"What happens here? {target.text(history, history)}")]
    async with Chats() as chats:
        first = chats.add(target.turn(messages, conversation, 16))
        await first.ended()
        messages += [ChatMessage("assistant", first.text), ChatMessage("user", "And why is that?")]
        second = chats.add(target.turn(messages, conversation, 4))
        await second.ended()
        await chats.begun()
    values = {
        "first_ttft": first.ttft,
        "second_ttft": second.ttft,
        "prompt_tokens": float(second.prompt_tokens),
        "cached_tokens": float(second.cached_tokens),
    }
    return Row("turns", {"history": history}, values)


async def gap(target: Target) -> Row:
    """Measure the gaps between the tokens of running chats, alone and while a long prompt arrives."""
    length = min(GAP_PROMPT, target.context // 2) if target.context else GAP_PROMPT
    async with Chats() as chats, Chats() as arriving:
        for number in range(GAP_CHATS):
            chats.add(target.chat(number, SHORT))
        await chats.begun()
        began = time.perf_counter()
        await chats.more(GAP_TOKENS)
        arrival = time.perf_counter()
        long = arriving.add(target.chat(GAP_CHATS, length))
        await arriving.begun()
        end = time.perf_counter()
        chats.check()
        during = gaps(chats, arrival, end)
        values = {
            "alone_p50": statistics.median(gaps(chats, began, arrival)),
            "gap_p50": statistics.median(during),
            "gap_p99": share(during, 0.99),
            "ttft": long.ttft,
        }
    return Row("gap", {"chats": GAP_CHATS, "prompt": length}, values)


def gaps(chats: Iterable[Chat], start: float, end: float) -> list[float]:
    """Return the gaps that ended in that time, and how long each chat had been waiting at its end."""
    found = []
    for chat in chats:
        times = [moment for moment in chat.times if moment <= end]
        for earlier, later in zip(times, [*times[1:], end], strict=True):
            if later > start and later > earlier:
                found.append(later - earlier)
    return found


async def cancel(target: Target) -> Row:
    """Measure from cancelling a chat among others to its end, when its memory is free; the longest of a few."""
    async with Chats() as chats:
        for number in range(2 * CANCELLED):
            chats.add(target.chat(number, SHORT))
        await chats.begun()
        waits = []
        for chat in list(chats)[:CANCELLED]:
            began = time.perf_counter()
            chat.cancel()
            await chat.ended()
            waits.append(time.perf_counter() - began)
    return Row("cancel", {"chats": len(chats)}, {"seconds": max(waits)})
