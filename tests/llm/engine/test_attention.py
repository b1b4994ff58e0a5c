"""A chunk of a prompt takes no more memory behind a long past, and attends as it would in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from llm.engine import verify
from llm.engine.attention import packed
from llm.engine.attention.kernels import Kind
from llm.engine.kvcache import Kept, Segment
from llm.engine.layout import LayerShape, Layout
from llm.engine.step import Engine
from tests.llm.engine.test_step import prompt, run, sequence
from tests.llm.models import generated, tiny

HEADS, KV_HEADS, WIDTH = 8, 2, 8
LAYOUT = Layout((LayerShape(KV_HEADS, WIDTH, WIDTH),), torch.float32, torch.device("cpu"))
PAST, SIZE = 6_000, 400
KINDS = [Kind(None), Kind(None, window=3_000), Kind(None, softcap=2.0), Kind(None, sinks=torch.ones(HEADS))]


class Sizes(TorchDispatchMode):
    """Notes the numbers in the largest tensor that an operator makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, Tensor):
            self.largest = max(self.largest, found.untyped_storage().nbytes() // found.itemsize)
        return found


@contextmanager
def pieces_of(scores: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setattr(packed, "MOST_SCORES", scores)
        yield


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def chunk(kept: int) -> packed.Chunk:
    """A chunk of SIZE tokens behind PAST others, of which `kept` are those of an earlier turn."""
    base = Kept(kept, [noise(KV_HEADS, kept, WIDTH)], [noise(KV_HEADS, kept, WIDTH) + 1]) if kept else None
    segment = Segment(LAYOUT, PAST + SIZE - kept, base, kept)
    for tensor in (*segment.keys, *segment.values):
        tensor[:, : PAST - kept] = noise(KV_HEADS, PAST - kept, WIDTH)
    return packed.Chunk(segment, PAST, SIZE)


@pytest.mark.parametrize("kept", [0, PAST // 2])
@pytest.mark.parametrize("kind", KINDS, ids=["plain", "window", "softcap", "sinks"])
def test_scores_of_a_chunk_are_bounded(kept: int, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the past, whether it was computed for this prompt or kept; in whatever way a layer attends."""
    query, key, value = noise(1, SIZE, HEADS, WIDTH), noise(1, SIZE, KV_HEADS, WIDTH), noise(1, SIZE, KV_HEADS, WIDTH)
    assert HEADS * SIZE * (PAST + SIZE) > packed.MOST_SCORES
    with Sizes() as sizes:
        found = chunk(kept).attend(0, query, key, value, kind)
    assert sizes.largest <= packed.MOST_SCORES
    with pieces_of(1 << 40, monkeypatch):
        whole = chunk(kept).attend(0, query, key, value, kind)
    torch.testing.assert_close(found, whole)


@pytest.mark.parametrize(
    ("family", "scores"),
    [("llama", 1), ("llama", 3_000), ("mistral, window", 3_000), ("gemma2, window and softcap", 3_000)],
)
def test_a_chunk_in_pieces_equals_generate(family: str, scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One query at a time where nothing else is allowed; in a first turn and behind what was kept of it."""
    model = tiny(family)
    first = prompt(70)
    expected = generated(model, first, 8, eos_token_id=None)
    second = [*first, *expected, *prompt(40, seed=3)]
    after = generated(model, second, 8, eos_token_id=None)
    engine = Engine(verify.packed(model), kv_tokens=1_000, chunk_tokens=33)
    with pieces_of(scores, monkeypatch):
        for tokens, answer in ((first, expected), (second, after)):
            one = sequence(tokens, 8, conversation="a")
            run(engine, {0: [one]})
            assert one.generated == answer
    assert one.cached == len(first) + 8 - 1
