"""The engine gives what `generate()` gives with a real model too: the one that comes with the project."""

from __future__ import annotations

import pytest

from llm.engine import verify
from llm.engine.step import Engine
from llm.loading.loader import LoadedModel
from tests.llm.engine.test_step import run, sequence
from tests.llm.models import generated

TEXTS = ["Hello!", "Who is Alan Turing? Answer in two sentences.", "Write one line about the sea.\n" * 12]
COUNTS = [24, 12, 20]


@pytest.mark.model
def test_bundled_model_equals_generate(bundled: LoadedModel) -> None:
    chats = [[{"role": "user", "content": text}] for text in TEXTS]
    prompts = [bundled.tokenizer.apply_chat_template(c, add_generation_prompt=True)["input_ids"] for c in chats]
    greedy = {"temperature": None, "top_p": None, "pad_token_id": 2}
    expected = [generated(bundled.model, p, n, **greedy) for p, n in zip(prompts, COUNTS, strict=True)]
    forward = verify.packed(bundled.model)
    sequences = [
        sequence(tokens, count, stop_tokens=bundled.stop_tokens) for tokens, count in zip(prompts, COUNTS, strict=True)
    ]
    run(Engine(forward, chunk_tokens=64), {0: [sequences[0]], 2: [sequences[1]], 5: [sequences[2]]})
    for one, answer in zip(sequences, expected, strict=True):
        end = [i for i, token in enumerate(answer) if token in bundled.stop_tokens]
        assert one.generated == answer[: end[0] if end else None]
