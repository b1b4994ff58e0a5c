"""Models that packed batching would compute wrongly are told apart, without a list of names."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BloomConfig,
    FalconConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    Phi3Config,
    XGLMConfig,
)

from llm.engine import verify
from llm.engine.attention import packed_attention
from llm.engine.verify import Unsupported
from tests.llm.models import FAMILIES, SIZES, randomised, tiny

HEADS = {"num_key_value_heads": 2, "head_dim": 16}
UNSUPPORTED: dict[str, tuple[Any, str]] = {
    "bloom": (lambda: BloomConfig(vocab_size=300, hidden_size=64, n_layer=3, n_head=4), "attention cannot be replaced"),
    "falcon": (lambda: FalconConfig(**SIZES), "attention cannot be replaced"),
    "xglm": (
        lambda: XGLMConfig(vocab_size=300, d_model=64, ffn_dim=96, num_layers=3, attention_heads=4),
        "attention cannot be replaced",
    ),
    "mamba": (lambda: MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=3), "more than keys and values"),
    "llama4, chunked mask": (
        lambda: Llama4TextConfig(
            **SIZES, **HEADS, attention_chunk_size=64, num_local_experts=2, intermediate_size_mlp=96
        ),
        "mask is neither causal nor a sliding window",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_accepts(family: str) -> None:
    layers = verify.packed(tiny(family)).layout.layers
    assert len(layers) == 3
    assert all(layer.key_width == 16 for layer in layers)


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_turns_away(name: str) -> None:
    config, why = UNSUPPORTED[name]
    with pytest.raises(Unsupported, match=why):
        verify.packed(randomised(config()))


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
    assert [verify.context_limit(config) for config in (plain, dynamic, long)] == [512, 512, 128]
