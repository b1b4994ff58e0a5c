"""llama.cpp's raw batched decode, on the same rows as `manage.py benchmark --only throughput`.

    python -m venv /tmp/llamacpp && /tmp/llamacpp/bin/pip install llama-cpp-python    # compiles, about 4 minutes
    /tmp/llamacpp/bin/python tests/load/peers/llamacpp.py MODEL.gguf

Raw: one `llama_decode` for a token of each sequence, without sampling, text or streaming, which ours pays for. Needs
nothing of this project; `compare` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import llama_cpp

WARM_UP = 3


@contextmanager
def sequences(model: Any, count: int, length: int, threads: int) -> Iterator[Any]:
    """A context for so many sequences, each at most so long."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx, params.n_seq_max = count * (-(-length // 256) * 256), count
    params.n_batch = params.n_ubatch = 512
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model, params)
    if not context:
        raise SystemExit("llama.cpp cannot make a context")
    try:
        yield context
    finally:
        llama_cpp.llama_free(context)


class Batch:
    """Tokens for one `llama_decode`."""

    def __init__(self, size: int) -> None:
        self._batch = llama_cpp.llama_batch_init(size, 0, 1)

    def decode(self, context: Any, tokens: list[tuple[int, int, int, bool]]) -> None:
        """tokens: (token, position, sequence, whether its logits are wanted)"""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, (token, position, sequence, wanted) in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, wanted
        if llama_cpp.llama_decode(context, batch):
            raise SystemExit("llama.cpp cannot decode this batch")

    def free(self) -> None:
        llama_cpp.llama_batch_free(self._batch)


def measure(model: Any, count: int, length: int, tokens: int, threads: int) -> float:
    """Tokens a second of `count` sequences with `length` tokens of context."""
    batch = Batch(512)
    with sequences(model, count, length + WARM_UP + tokens + 1, threads) as context:
        for sequence in range(count):
            prompt = [(1000 + i, i, sequence, i == length - 1) for i in range(length)]
            for start in range(0, length, 512):
                batch.decode(context, prompt[start : start + 512])
        began = 0.0
        for step in range(WARM_UP + tokens):
            if step == WARM_UP:
                began = time.perf_counter()
            batch.decode(context, [(2000 + step, length + step, sequence, True) for sequence in range(count)])
        seconds = time.perf_counter() - began
    batch.free()
    return count * tokens / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--chats", type=int, nargs="+", default=[1, 16, 32])
    parser.add_argument("--contexts", type=int, nargs="+", default=[40, 600])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    llama_cpp.llama_backend_init()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    params = llama_cpp.llama_model_default_params()
    params.use_extra_bufts = False  # with AMX, its weights in an order of their own crash the first decode (0.3.36)
    model = llama_cpp.llama_model_load_from_file(given.model.encode(), params)
    rows = [
        {
            "name": "throughput",
            "of": {"chats": count, "context": context},
            "values": {"tokens_per_second": measure(model, count, context, given.tokens, given.threads)},
        }
        for context in given.contexts
        for count in given.chats
    ]
    print(json.dumps({"model": f"llama.cpp {llama_cpp.__version__}", "rows": rows}))


if __name__ == "__main__":
    main()
