"""The engine on a CUDA device is exact against `generate()`, samples as on the CPU and gives memory back."""

from __future__ import annotations

import pytest
import torch

from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.engine import alone, verify
from llm.engine.sampler import sample
from llm.engine.step import Engine
from llm.errors import Unsupported
from llm.sampling import SamplingParams
from tests.llm.backends.test_local import ENDLESS, Answer, asked, ignore
from tests.llm.engine.test_alone import run as run_alone
from tests.llm.engine.test_sampler import noise, row
from tests.llm.engine.test_step import prompt, run, sequence
from tests.llm.models import CONTEXT, FAMILIES, OTHERS, generated, tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_generate(family: str) -> None:
    """In a batch of different lengths, in chunks, joining and leaving."""
    model = tiny(family).to("cuda")
    prompts = [prompt(length) for length in (5, 11, 26, 120, 150)]
    expected = [generated(model, tokens, 15, eos_token_id=None) for tokens in prompts]
    engine = Engine(verify.packed(model), chunk_tokens=12)
    batch = [sequence(tokens, 15) for tokens in prompts]
    gone = sequence(prompt(33, seed=7), 100)
    run(engine, {0: batch[:1], 3: [batch[1], gone], 4: batch[2:4], 9: batch[4:]}, {17: [gone]})
    assert [one.generated for one in batch] == expected
    assert engine.cache.allocated_bytes == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    """The logits were compared at load; here they lead to whole answers."""
    forward = verify.packed(tiny().to("cuda", dtype))
    one = sequence(prompt(20), 10)
    run(Engine(forward), {0: [one, sequence(prompt(9), 10)]})
    assert (forward.layout.dtype, len(one.generated)) == (dtype, 10)


@pytest.mark.parametrize("name", OTHERS)
def test_what_cannot_be_batched(name: str) -> None:
    model = tiny(name).to("cuda")
    with pytest.raises(Unsupported):
        verify.packed(model, CONTEXT)
    expected = generated(model, prompt(60), 15, eos_token_id=None)
    one = sequence(prompt(60), 15)
    run_alone(alone.tried(model), one)
    assert one.generated == expected


@pytest.mark.parametrize(
    "params", [{"top_p": 0.9}, {"top_p": 1.0}, {"top_p": 1.0, "top_k": 70}, {"repetition_penalty": 1.3}], ids=str
)
def test_a_seed_gives_what_it_gives_on_a_cpu(params: dict[str, float]) -> None:
    logits = noise(8, 20_000)
    for seed in range(20):
        rows = [[row((1, 2, 3), seed=seed + i, temperature=1.0, **params) for i in range(8)] for _ in range(2)]
        assert sample(logits.cuda(), rows[0]) == sample(logits, rows[1])


async def test_backend_on_a_named_device() -> None:
    for device in ("auto", "cuda", "cuda:0"):
        backend = LocalBackend(Settings(model=ENDLESS, device=device, dtype="float32", max_new_tokens=50))
        info = await backend.load(ignore)
        assert info.mode.startswith("packed batching, cuda:0, float32")
        answer = Answer(backend, asked("hello", params=SamplingParams(temperature=0.0, max_new_tokens=20)))
        assert (await answer.end).reason == "length"
        await backend.close()
