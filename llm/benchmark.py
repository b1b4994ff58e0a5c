"""How fast the engine is on this machine: `python manage.py benchmark`, or `python -m llm.benchmark` without Django.

Each round starts N chats at once, on the backend itself: no queue, no sockets. Answers do not end by themselves here,
and tokens are counted while all N are in decode. Knows the local backend only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from llm.backends.base import End, ModelInfo, Piece
from llm.backends.local import LocalBackend
from llm.conf import Settings, from_mapping
from llm.errors import ConfigurationError
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams

CHATS = (1, 2, 4, 8, 16, 32)
TOKENS = 48
CANCELS = 5
CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")

Tell = Callable[[str], None]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """N chats that arrived at once. Seconds, and tokens a second."""

    chats: int
    prompt_tokens: int
    tokens_per_second: float
    tokens_per_second_each: float
    ttft_p50: float
    ttft_p95: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured, and on what."""

    machine: str
    cpu_features: list[str]
    threads: int
    model: str
    mode: str
    load_seconds: float
    rounds: list[Round]
    cancel_to_free: float


class Chat:
    """One generation and the times of its tokens."""

    def __init__(self, backend: LocalBackend, number: int, tokens: int) -> None:
        text = f"Question {number}: what do you know of Alan Turing?"
        params = SamplingParams(max_new_tokens=tokens)
        prepared = backend.prepare(GenerationRequest(messages=(ChatMessage("user", text),), params=params))
        self.prompt_tokens = len(prepared.tokens)
        self.times: list[float] = []
        self.first = asyncio.Event()
        self.ended = asyncio.Event()
        self.began = time.perf_counter()
        self.job = backend.start(prepared._replace(stop_tokens=frozenset()), self._take)

    @property
    def ttft(self) -> float:
        return self.times[0] - self.began

    def _take(self, event: Piece | End) -> None:
        if isinstance(event, End):
            self.ended.set()
            return
        self.times += [time.perf_counter()] * event.tokens
        self.first.set()


async def measure(settings: Settings, chats: Sequence[int], tokens: int, tell: Tell) -> Report:
    """Load the model and run all rounds. Raises ConfigurationError."""
    settings = msgspec.structs.replace(settings, max_new_tokens=max(tokens, settings.max_new_tokens))
    backend = LocalBackend(settings)
    began = time.perf_counter()
    try:
        info = await backend.load(lambda what, done: tell(what if done is None else f"{what} {done:.0%}"))
        loaded = time.perf_counter() - began
        tell("warming up")
        await chat_round(backend, 1, 8)
        rounds = []
        for count in chats:
            tell(f"{count} chats at once" if count > 1 else "1 chat")
            rounds.append(await chat_round(backend, count, tokens))
        tell("cancelling")
        cancel = await cancel_to_free(backend)
    finally:
        await backend.close()
    return report(info, loaded, rounds, cancel)


def report(info: ModelInfo, loaded: float, rounds: list[Round], cancel: float) -> Report:
    machine, features = cpu()
    return Report(
        machine=machine,
        cpu_features=features,
        threads=torch.get_num_threads(),
        model=info.name,
        mode=info.mode,
        load_seconds=loaded,
        rounds=rounds,
        cancel_to_free=cancel,
    )


async def chat_round(backend: LocalBackend, count: int, tokens: int) -> Round:
    """Tokens are counted from the last chat's first token to the first chat's last one."""
    # the first to arrive goes on until the last has begun, so that there is a time in which all are in decode
    chats = [Chat(backend, number, tokens + 2 * count) for number in range(count)]
    for chat in chats:
        await chat.ended.wait()
    start, end = max(chat.times[0] for chat in chats), min(chat.times[-1] for chat in chats)
    counted = sum(start < moment <= end for chat in chats for moment in chat.times)
    rate = counted / (end - start)
    ttfts = sorted(chat.ttft for chat in chats)
    return Round(
        chats=count,
        prompt_tokens=round(statistics.mean(chat.prompt_tokens for chat in chats)),
        tokens_per_second=rate,
        tokens_per_second_each=rate / count,
        ttft_p50=statistics.median(ttfts),
        ttft_p95=ttfts[max(0, -(-len(ttfts) * 95 // 100) - 1)],
    )


async def cancel_to_free(backend: LocalBackend) -> float:
    """From cancelling a chat among others to its end, when its memory is free; the longest of a few."""
    chats = [Chat(backend, number, 400) for number in range(2 * CANCELS)]
    for chat in chats:
        await chat.first.wait()
    waits = []
    for chat in chats[:CANCELS]:
        began = time.perf_counter()
        chat.job.cancel()
        await chat.ended.wait()
        waits.append(time.perf_counter() - began)
    for chat in chats:
        chat.job.cancel()
        await chat.ended.wait()
    return max(waits)


def cpu() -> tuple[str, list[str]]:
    """The processor's name, and those of its features that matter for speed."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), []
    values = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = values.get("model name") or platform.machine()
    flags = set(values.get("flags", values.get("features", "")).split())
    cores = os.cpu_count()
    return f"{name}, {cores} CPUs", [feature for feature in CPU_FEATURES if feature in flags]


def table(report: Report) -> Table:
    title = f"{report.model}: {report.mode}, {report.threads} threads, loaded in {report.load_seconds:.1f} s"
    found = Table(title=title, caption=f"{report.machine}: {', '.join(report.cpu_features) or 'no known features'}")
    headings = ("chats", "prompt", "tok/s", "tok/s each", "to one chat", "TTFT p50", "TTFT p95")
    for heading in headings:
        found.add_column(heading, justify="right")
    one = next((round.tokens_per_second for round in report.rounds if round.chats == 1), None)
    for round in report.rounds:
        found.add_row(
            str(round.chats),
            str(round.prompt_tokens),
            f"{round.tokens_per_second:.0f}",
            f"{round.tokens_per_second_each:.1f}",
            f"{round.tokens_per_second / one:.1f}x" if one else "-",
            f"{round.ttft_p50:.2f} s",
            f"{round.ttft_p95:.2f} s",
        )
    found.add_section()
    found.add_row("cancel", "", "", "", "", "", f"{report.cancel_to_free:.2f} s")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chats", type=int, nargs="+", default=list(CHATS), help="how many at once, round by round")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens of each answer that are counted")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def run(settings: Settings, chats: Sequence[int], tokens: int, as_json: bool) -> None:
    """Measure, show how far it is on the terminal, print the result. Raises ConfigurationError."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting")
        found = asyncio.run(measure(settings, chats, tokens, lambda text: progress.update(task, description=text)))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    else:
        Console().print(table(found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m llm.benchmark", description="Measure the engine on this machine.")
    add_arguments(parser)
    arguments = parser.parse_args()
    try:
        run(from_mapping(os.environ), arguments.chats, arguments.tokens, arguments.json)
    except ConfigurationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
