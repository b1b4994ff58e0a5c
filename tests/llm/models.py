"""Tiny causal language models with random weights, of several families, made in a moment."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

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
CONFIGS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**SIZES, num_key_value_heads=2),
    "gpt_neox": lambda: GPTNeoXConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": lambda: Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),
    "mistral, window": lambda: MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=8),
    "gemma2, window and softcap": lambda: Gemma2Config(
        **SIZES, num_key_value_heads=2, head_dim=16, sliding_window=8, attn_logit_softcapping=1.0
    ),
}
FAMILIES = list(CONFIGS)


def tiny(family: str = "llama") -> Any:
    return randomised(CONFIGS[family]())


def randomised(config: Any) -> Any:
    """Noise on every weight, norms and biases too, so that none of them can be forgotten unnoticed."""
    torch.manual_seed(11)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def generated(model: Any, prompt: list[int], count: int, **options: Any) -> list[int]:
    """The model's own greedy continuation."""
    model.set_attn_implementation("eager")
    tokens = torch.tensor([prompt])
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


def hanging_chat() -> tuple[Any, Any]:
    """Its forward does not come back as long as the file that HANG names exists."""
    model, tokenizer = tiny_chat()
    model.register_forward_pre_hook(lambda *_: threading.Event().wait() if Path(os.environ["HANG"]).exists() else None)
    return model, tokenizer
