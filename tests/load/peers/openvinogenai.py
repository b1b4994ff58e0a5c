"""OpenVINO GenAI's continuous batching, on the same rows as `manage.py benchmark --only throughput`.

By hand, gigabytes; MODEL is a directory that transformers loads (the bundled one is converted into `var/models/`):

    python -m venv /tmp/openvino && /tmp/openvino/bin/pip install openvino-genai "optimum-intel[openvino]"
    /tmp/openvino/bin/optimum-cli export openvino --model MODEL --task text-generation-with-past \\
        --weight-format int8 OUT
    /tmp/openvino/bin/python tests/load/peers/openvinogenai.py OUT

Needs nothing of this project; `compare` runs it with `--openvino /tmp/openvino/bin/python --openvino-model OUT`.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy
import openvino
import openvino_genai

WARM_UP = 3


def measure(pipeline: Any, count: int, length: int, tokens: int) -> float:
    """Tokens a second of `count` sequences with `length` tokens of context, while all are in decode."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = WARM_UP + tokens + count + 8, True, False
    handles = [
        pipeline.add_request(
            number, openvino.Tensor(numpy.array([[1000 + number, *range(1001, 1000 + length)]])), config
        )
        for number in range(count)
    ]
    generated = [0] * count

    def step() -> None:
        pipeline.step()
        for i, handle in enumerate(handles):
            while handle.can_read():
                generated[i] += sum(len(output.generated_ids) for output in handle.read().values())

    while min(generated) < WARM_UP:
        step()
    before, began = sum(generated), time.perf_counter()
    for _ in range(tokens):
        step()
    rate = (sum(generated) - before) / (time.perf_counter() - began)
    while pipeline.has_non_finished_requests():
        step()
    return rate


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--chats", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--contexts", type=int, nargs="+", default=[40, 600])
    parser.add_argument("--tokens", type=int, default=32)
    given = parser.parse_args()
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching = 4, False
    scheduler.max_num_batched_tokens = 1024
    pipeline = openvino_genai.ContinuousBatchingPipeline(given.model, scheduler, "CPU")
    rows = [
        {
            "name": "throughput",
            "of": {"chats": count, "context": context},
            "values": {"tokens_per_second": measure(pipeline, count, context, given.tokens)},
        }
        for context in given.contexts
        for count in given.chats
    ]
    print(json.dumps({"model": f"OpenVINO GenAI {openvino_genai.__version__}", "rows": rows}))


if __name__ == "__main__":
    main()
