"""Plans what is measured, in order, runs it, and shows the progress on the terminal."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from llm.benchmark import load, machine, quality, report
from llm.benchmark.options import Options
from llm.benchmark.report import Report, Row
from llm.benchmark.target import LocalTarget, ServerTarget, Target
from llm.conf import Settings
from llm.errors import RequestError

Tell = Callable[[str], None]


class Measurement(NamedTuple):
    """One measurement; `title` is shown while it runs."""

    title: str
    take: Callable[[], Awaitable[Row]]


def before_loading(settings: Settings, options: Options) -> list[Measurement]:
    """Return the measurements that load the model themselves."""
    found = []
    if "start" in options.kinds:
        found.append(Measurement("starting", partial(machine.start, settings)))
    if "quality" in options.kinds:
        for quantization in dict.fromkeys(("none", settings.quantization)):
            changed = msgspec.structs.replace(settings, quantization=quantization)
            found.append(Measurement(f"perplexity, {quantization} quantized", partial(quality.quality, changed)))
    return found


def on_target(target: Target, options: Options) -> list[Measurement]:
    kinds, tokens = options.kinds, options.tokens
    found: list[Measurement] = []

    async def memory(when: str) -> Row:
        return machine.memory(when)

    if "memory" in kinds:
        found.append(Measurement("memory", partial(memory, "loaded")))
    if "throughput" in kinds:
        for context, count in itertools.product(options.contexts, options.chats):
            title = f"{count} {'chat' if count == 1 else 'chats at once'} at {context} tokens"
            found.append(Measurement(title, partial(load.throughput, target, count, context, tokens)))
    if "mixed" in kinds:
        found.append(Measurement("short chats beside a long one", partial(load.mixed, target, tokens)))
    if "turns" in kinds:
        for history in options.histories:
            found.append(Measurement(f"a second turn after {history} tokens", partial(load.turns, target, history)))
    if "gap" in kinds:
        found.append(Measurement("gaps beside a long prompt", partial(load.gap, target)))
    if "cancel" in kinds:
        found.append(Measurement("cancelling", partial(load.cancel, target)))
    if "memory" in kinds:
        found.append(Measurement("memory", partial(memory, "peak")))
    return found


async def measure(settings: Settings, options: Options, tell: Tell, done: Callable[[int], None]) -> Report:
    """Take all measurements. `done` is told how many are left. Raises ConfigurationError."""
    target: Target = ServerTarget(options.url, options.model) if options.url else LocalTarget(settings)
    first = before_loading(settings, options)
    then = on_target(target, options)
    rows: list[Row] = []

    async def take(measurements: list[Measurement], left: int) -> None:
        for number, measurement in enumerate(measurements):
            tell(measurement.title)
            done(left + len(measurements) - number)
            try:
                rows.append(await measurement.take())
            except RequestError as error:  # a server may refuse one of them, for want of places or of context
                sys.stderr.write(f"{measurement.title}: {error}\n")

    await take(first, len(then))
    try:
        await target.open(tell)
        tell("warming up")
        await load.throughput(target, 1, load.SHORT, 4)
        await take(then, 0)
    finally:
        await target.close()
    name, features = machine.cpu()
    return Report(
        machine=name,
        cpu_features=features,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        model=target.name,
        mode=target.mode,
        rows=rows,
    )


def run(settings: Settings, options: Options) -> None:
    """Measure, show the progress on the terminal, print the result. Raises ConfigurationError."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def done(left: int) -> None:
            finished = progress.tasks[0].completed
            total = progress.tasks[0].total or finished + left
            progress.update(task, total=total, completed=total - left)

        found = asyncio.run(measure(settings, options, lambda text: progress.update(task, description=text), done))
    if options.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    else:
        Console().print(report.shown(found))
