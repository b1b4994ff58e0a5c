"""Tiny causal language models with random weights, of several families, made in a moment."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
    XGLMConfig,
)

from llm.engine.step import Engine
from tests.llm.tokenizers import byte_level

VOCABULARY = 300
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
ROPE = {"rope_theta": 10000.0, "factor": 2.0, "original_max_position_embeddings": 64}
GROUPED = {"num_key_value_heads": 2, "head_dim": 16}
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=2),
    "llama, one key head for each query head, tied": lambda: LlamaConfig(**SIZES, tie_word_embeddings=True),
    "llama, rope llama3": lambda: LlamaConfig(
        **SIZES, rope_parameters={**ROPE, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    ),
    "llama, rope yarn": lambda: LlamaConfig(**SIZES, rope_parameters={**ROPE, "rope_type": "yarn"}),
    "llama, rope linear": lambda: LlamaConfig(**SIZES, rope_parameters={**ROPE, "rope_type": "linear"}),
    "mistral, window": lambda: MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8),
    "qwen2": lambda: Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen2, window in some layers": lambda: Qwen2Config(
        **SIZES, num_key_value_heads=2, use_sliding_window=True, sliding_window=8, max_window_layers=1
    ),
    "qwen3": lambda: Qwen3Config(**SIZES, **GROUPED),
    "gemma2, window and softcap": lambda: Gemma2Config(
        **SIZES, **GROUPED, sliding_window=8, attn_logit_softcapping=1.0
    ),
    "gemma3": lambda: Gemma3TextConfig(**SIZES, **GROUPED, sliding_window=8),
    "phi3": lambda: Phi3Config(**SIZES, num_key_value_heads=2),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=3, n_head=4, n_positions=512, eos_token_id=2),
}
FAMILIES = list(CONFIGS)
"""Those that are computed in one batch."""

DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
OTHERS: dict[str, tuple[Any, str]] = {
    "bloom": (
        lambda: BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=3, n_head=4, eos_token_id=2),
        "attention cannot be replaced",
    ),
    "falcon": (lambda: FalconConfig(**SIZES), "attention cannot be replaced"),
    "xglm": (
        lambda: XGLMConfig(vocab_size=VOCABULARY, d_model=64, ffn_dim=96, num_layers=3, attention_heads=4),
        "attention cannot be replaced",
    ),
    "mamba": (
        lambda: MambaConfig(vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=3),
        "more than keys and values",
    ),
    "llama4, chunked mask": (
        lambda: Llama4TextConfig(
            **SIZES, **GROUPED, attention_chunk_size=16, num_local_experts=2, intermediate_size_mlp=96
        ),
        "mask is neither causal nor a sliding window",
    ),
    "llama, dynamic rope": (
        lambda: LlamaConfig(**SIZES, max_position_embeddings=64, rope_parameters=DYNAMIC),
        "rotary embeddings change where a sequence is longer than 64 tokens",
    ),
}
"""Those that are not, and why not."""
CONTEXT = 200


def tiny(family: str = "llama") -> Any:
    return randomised((CONFIGS.get(family) or OTHERS[family][0])())


def randomised(config: Any) -> Any:
    """Noise on every weight, norms and biases too, so that none of them can be forgotten unnoticed."""
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def generated(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    """The model's own greedy continuation."""
    if model.config._attn_implementation == "packed":
        model.set_attn_implementation("eager")
    tokens = torch.tensor([prompt], device=model.device)
    out = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=count, do_sample=False, **options
    )
    return [int(token) for token in out[0, len(prompt) :]]


def tiny_chat() -> tuple[Any, Any]:
    """What LLM_MODEL=python:tests.llm.models.tiny_chat gives."""
    tokenizer = byte_level()
    config = LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=512)
    return randomised(config), tokenizer


def endless_chat() -> tuple[Any, Any]:
    """The same, and it never ends an answer by itself."""
    model, tokenizer = tiny_chat()
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token = None
    return model, tokenizer


def failing() -> tuple[Any, Any]:
    raise ValueError("two lines\nof trouble")


def too_large() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def hanging_chat() -> tuple[Any, Any]:
    """A step does not come back as long as the file that HANG names exists. For processes of their own."""
    step = Engine.step

    def hanging(engine: Engine) -> Any:
        if Path(os.environ["HANG"]).exists():
            threading.Event().wait()
        return step(engine)

    Engine.step = hanging  # type: ignore[method-assign]
    return tiny_chat()
