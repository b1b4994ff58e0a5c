"""The slower engine gives the tokens of `generate()`, streamed, one answer at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.engine import alone
from llm.engine.alone import Alone
from llm.engine.sequence import Sequence
from llm.engine.step import Result
from llm.errors import ConfigurationError
from llm.request import GenerationRequest
from llm.sampling import SamplingParams
from tests.llm.backends.test_local import Answer, asked, ignore
from tests.llm.models import CONTEXT, FAMILIES, OTHERS, VOCABULARY, generated, tiny
from tests.llm.prompts.rendered import GREEDY
from tests.llm.tokenizers import byte_level


def prompt(length: int) -> list[int]:
    return torch.randint(3, VOCABULARY, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def sequence(tokens: list[int], count: int = 20, params: SamplingParams = GREEDY, **options: Any) -> Sequence:
    return Sequence(tokens, params, max_new_tokens=count, **options)


@torch.inference_mode()
def run(engine: Alone, *sequences: Sequence) -> list[Result]:
    for one in sequences:
        engine.add(one)
    results = []
    while engine.busy:
        results += engine.step()
    return results


@pytest.mark.parametrize("family", [*OTHERS, FAMILIES[0]])
def test_equals_generate(family: str) -> None:
    """Over the borders of chunks and of original lengths too; one after the other."""
    model = tiny(family)
    prompts = [prompt(length) for length in (5, 60, 150)]
    expected = [generated(model, tokens, 20, eos_token_id=None) for tokens in prompts]
    sequences = [sequence(tokens) for tokens in prompts]
    results = run(alone.tried(model), *sequences)
    assert [one.generated for one in sequences] == expected
    assert [result.sequence for result in results] == [one for one in sequences for _ in range(20)]
    assert [result.finish for result in results] == ([None] * 19 + ["length"]) * 3


def test_ends_at_a_stop_token() -> None:
    model = tiny("bloom")
    full = generated(model, prompt(9), 20, eos_token_id=None)
    one = sequence(prompt(9), stop_tokens=frozenset({full[7]}))
    results = run(Alone(model), one)
    assert one.generated == full[: full.index(full[7])]
    assert results[-1] == Result(one, None, "stop")


def test_sampling_is_that_of_the_request() -> None:
    params = SamplingParams(temperature=1.0, top_p=0.9, seed=7)
    engine = Alone(tiny("mamba"))
    answers = [sequence(prompt(9), params=params) for _ in range(2)]
    other = sequence(prompt(9), params=SamplingParams(temperature=1.0, seed=8))
    run(engine, answers[0], other, answers[1])
    assert answers[0].generated == answers[1].generated != other.generated
    biased = sequence(prompt(9), params=SamplingParams(temperature=0.0, logit_bias={77: 100.0}))
    run(engine, biased)
    assert set(biased.generated) == {77}


@torch.inference_mode()
def test_leaving_while_it_is_answered_and_while_it_waits() -> None:
    model = tiny("bloom")
    expected = generated(model, prompt(7), 20, eos_token_id=None)
    engine = Alone(model)
    first, waiting, last = sequence(prompt(5)), sequence(prompt(6)), sequence(prompt(7))
    for one in (first, waiting, last):
        engine.add(one)
    engine.step()
    for leaving in (waiting, first, first):
        engine.remove(leaving)
    run(engine)
    assert (last.generated, len(first.generated), waiting.generated) == (expected, 1, [])
    engine.add(sequence(prompt(5)))
    engine.clear()
    assert (engine.busy, engine.step()) == (False, [])


def test_an_answer_that_fails_fails_alone() -> None:
    model = tiny()
    expected = generated(model, prompt(8), 20, eos_token_id=None)
    embeddings = model.get_input_embeddings()
    embeddings.weight.data[9] = float("nan")
    embeddings.register_forward_pre_hook(lambda _, tokens: {}["no such"] if 11 in tokens[0] else None)
    nan, raises, good = sequence([9, 10]), sequence([11, 12]), sequence(prompt(8))
    results = run(Alone(model), nan, raises, good)
    ends = {result.sequence: result.finish for result in results if result.finish}
    assert ends == {nan: "error", raises: "error", good: "length"}
    assert good.generated == expected


@pytest.mark.parametrize("tokens", [[], [VOCABULARY], [-1]])
def test_a_prompt_outside_the_vocabulary(tokens: list[int]) -> None:
    engine = Alone(tiny("mamba"))
    with pytest.raises(ValueError, match="vocabulary"):
        engine.add(sequence(tokens))
    assert not engine.busy


# Behind the backend

BLOOM = "python:tests.llm.engine.test_alone.bloom_chat"


def bloom_chat() -> tuple[Any, Any]:
    return endless(tiny("bloom"))


def dynamic_chat() -> tuple[Any, Any]:
    return endless(tiny("llama, dynamic rope"))


def endless(model: Any) -> tuple[Any, Any]:
    tokenizer = byte_level()
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token = None
    return model, tokenizer


def encoder_with_decoder() -> tuple[Any, Any]:
    config = T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5ForConditionalGeneration(config), byte_level()


def broken() -> tuple[Any, Any]:
    model = tiny("bloom")
    model.get_input_embeddings().weight.data.fill_(float("nan"))
    return model, byte_level()


def settings(model: str, **more: Any) -> Settings:
    return Settings(**{"model": model, "device": "cpu", "max_new_tokens": 100, "context_length": CONTEXT, **more})


@pytest.fixture
async def backend(caplog: pytest.LogCaptureFixture) -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(settings(BLOOM))
    with caplog.at_level(logging.WARNING):
        info = await backend.load(ignore)
    said = "bloom cannot be batched: its attention cannot be replaced"
    assert (info.mode, info.places) == (f"one answer at a time, cpu, float32 ({said})", 1)
    assert info.longest_step == Settings().generation_timeout  # a long prompt is one step
    assert caplog.messages == [f"{said}. It gives one answer at a time, which is slower."]
    yield backend
    await backend.close()


async def test_streams_stops_and_is_cancelled(backend: LocalBackend) -> None:
    whole = Answer(backend, asked("hello", params=SamplingParams(temperature=0.0, max_new_tokens=40)))
    assert (await whole.end).reason == "length"
    assert len(whole.pieces) == 40
    stop = whole.text[10:13]
    answers = [Answer(backend, asked("hello", params=SamplingParams(temperature=0.0, stop=(stop,)))) for _ in range(3)]
    await answers[0].begun.wait()
    answers[1].job.cancel()
    assert [(await answer.end).reason for answer in answers] == ["stop", "cancelled", "stop"]
    assert answers[0].text == answers[2].text == whole.text[: whole.text.index(stop)]
    running = Answer(backend, asked("hello"))
    await running.begun.wait()
    running.job.cancel()
    assert (await running.end).reason == "cancelled"


async def test_the_controller_lets_one_run_and_says_so() -> None:
    limits = settings(BLOOM, num_of_concurrent_executions=4)
    controller = GenerationController(LocalBackend(limits), limits)
    await controller.load()
    stats = await controller.stats()
    assert (stats.max_processing, stats.mode[:20]) == (1, "one answer at a time")
    request = GenerationRequest(messages=asked("hello").messages, params=SamplingParams(max_new_tokens=5))
    tickets = [await controller.admit(f"v{i}") for i in range(3)]
    assert (await controller.stats()).waiting == 2
    streams = [ticket.run(request) for ticket in tickets]
    kinds = await asyncio.gather(*(_kinds(stream) for stream in streams))
    assert [kind[0] for kind in kinds] == ["Started", "Queued", "Queued"]
    assert [kind[-1] for kind in kinds] == ["Finished"] * 3
    await controller.aclose()


async def _kinds(stream: Any) -> list[str]:
    async with stream as events:
        return [type(event).__name__ async for event in events]


async def test_a_context_that_cannot_be_batched_is_answered_alone() -> None:
    """auto is what can be batched; who asks for more gets it."""
    for context, mode, length in (("auto", "packed batching", 64), (CONTEXT, "one answer at a time", CONTEXT)):
        limits = settings("python:tests.llm.engine.test_alone.dynamic_chat", context_length=context, max_new_tokens=32)
        backend = LocalBackend(limits)
        info = await backend.load(ignore)
        assert (info.mode[: len(mode)], info.context_length) == (mode, length)
        await backend.close()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("encoder_with_decoder", "t5 cannot be batched: .*; and it fails alone .*it is an encoder with a decoder"),
        ("broken", "bloom cannot be batched: .*; and it fails alone .*its logits are no numbers"),
    ],
)
async def test_what_fails_alone_too_is_refused_in_one_line(name: str, why: str) -> None:
    backend = LocalBackend(settings(f"python:tests.llm.engine.test_alone.{name}"))
    with pytest.raises(ConfigurationError, match=why) as caught:
        await backend.load(ignore)
    assert "\n" not in str(caught.value)
