"""Measures what a step costs on this machine, before the first request.

It knows the engine from outside: it gives it prompts of some lengths, each of which is one step.
"""

from __future__ import annotations

import time

import torch

from llm.engine.model_runner import Forward
from llm.engine.pace import LONGEST, Pace
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.sampling import SamplingParams

SIZES = (1, 8, 32, 96, 192)
"""Tokens of the steps; larger ones are tried only if the smaller ones were fast enough."""
TIMES = 3
"""Steps of each size. The first one makes the buffers; the fastest one counts."""


@torch.inference_mode()
def paced(engine: Engine, forward: Forward, context: int) -> Engine:
    """Return `engine` with a pace by what its steps cost."""
    measured: list[tuple[int, float]] = []
    for size in SIZES:
        if size >= context or (measured and measured[-1][1] > LONGEST):
            break
        measured.append((size, min(_step(forward, size) for _ in range(TIMES))))
    engine.pace = Pace(measured)
    return engine


def _step(forward: Forward, size: int) -> float:
    trial = Engine(forward, chunk_tokens=size, strict=True)
    trial.add(Sequence([i % forward.vocabulary for i in range(size)], SamplingParams(), max_new_tokens=1))
    began = time.perf_counter()
    trial.step()
    return time.perf_counter() - began
