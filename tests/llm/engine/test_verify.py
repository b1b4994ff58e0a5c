"""Models that packed batching would compute wrongly are told apart, without a list of names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    Phi3Config,
)

from llm.engine import verify
from llm.engine.attention.packed import packed_attention
from llm.errors import Unsupported
from tests.llm.models import CONTEXT, FAMILIES, OTHERS, SIZES, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_accepts(family: str) -> None:
    layers = verify.packed(tiny(family)).layout.layers
    assert len(layers) == 3
    assert all(layer.key_width == 16 for layer in layers)


@pytest.mark.parametrize("name", OTHERS)
def test_turns_away(name: str) -> None:
    """With a reason, and as it was before it was tried."""
    model = tiny(name)
    before = model.config._attn_implementation
    with pytest.raises(Unsupported, match=OTHERS[name][1]):
        verify.packed(model, CONTEXT)
    assert model.config._attn_implementation == before


def test_turns_away_what_only_the_logits_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attention that is slightly off is seen, and so is one that gives no numbers at all."""
    for factor in (1.01, float("nan")):

        def off(*arguments: Any, scaling: float, factor: float = factor, **keywords: Any) -> Any:
            return packed_attention(*arguments, scaling=scaling * factor, **keywords)

        monkeypatch.setitem(verify.AttentionInterface._global_mapping, "packed", off)
        with pytest.raises(Unsupported, match="logits differ"):
            verify.packed(tiny())


def test_turns_away_what_fails_when_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    monkeypatch.setattr(model, "forward", lambda **_: {}["no such\nkey"])
    with pytest.raises(Unsupported, match="it fails when it is tried") as caught:
        verify.packed(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_not_taken_for_a_fault(dtype: torch.dtype) -> None:
    assert verify.packed(tiny().to(dtype)).layout.dtype is dtype


def test_context_limit_is_that_of_a_changing_rope() -> None:
    plain = LlamaConfig(**SIZES, max_position_embeddings=512)
    dynamic = LlamaConfig(
        **SIZES,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )
    long = Phi3Config(
        **SIZES,
        max_position_embeddings=4096,
        original_max_position_embeddings=128,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 128,
        },
    )
    assert [verify.packed_limit(config) for config in (plain, dynamic, long)] == [512, 512, 128]
    assert [verify.context_limit(config) for config in (plain, dynamic, long)] == [512, 2048, 4096]


def test_a_changing_rope_is_batched_as_far_as_it_does_not_change() -> None:
    model = tiny("llama, dynamic rope")
    assert verify.packed(model, 64).layout
