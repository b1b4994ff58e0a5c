"""Measures how well the model predicts a text by the engine's own forward: the price of faster numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from llm.backends.computing import computed
from llm.backends.forward import forward
from llm.backends.local import context_length
from llm.benchmark.report import Row
from llm.benchmark.target import TEXT
from llm.conf import Settings
from llm.engine.attention import packed
from llm.engine.kvcache import Segment
from llm.engine.model_runner import Forward
from llm.loading.loader import load

CHUNK = 256


async def quality(settings: Settings) -> Row:
    return await computed(_quality, settings)


def _quality(settings: Settings) -> Row:
    loaded = load(settings, lambda *_: None)
    tokens = loaded.tokenizer(TEXT)["input_ids"]
    computes, _ = forward(settings, loaded, context_length(settings, loaded), lambda *_: None)
    return Row("quality", {"quantization": settings.quantization}, {"perplexity": perplexity(computes, tokens)})


@torch.inference_mode()
def perplexity(forward: Forward, tokens: Sequence[int]) -> float:
    """Return e to the mean surprise at each token but the first, in one sequence, computed in chunks as a prompt is."""
    segment = Segment(forward.layout, len(tokens))
    surprise = 0.0
    for start in range(0, len(tokens) - 1, CHUNK):
        chunk, following = tokens[start : start + CHUNK], tokens[start + 1 : start + CHUNK + 1]
        size = len(following)
        pack = packed.Pack([packed.Chunk(segment, start, size)])
        logits = forward(chunk[:size], range(start, start + size), range(size), pack)
        expected = torch.tensor(following, device=logits.device)
        surprise += torch.nn.functional.cross_entropy(logits.float(), expected, reduction="sum").item()
    return math.exp(surprise / (len(tokens) - 1))
