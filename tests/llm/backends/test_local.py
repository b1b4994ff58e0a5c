"""The local backend as the controller sees it: load, prepare, start, cancel, close."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llm.backends.base import End, Piece
from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.engine.thread import EngineThread
from llm.errors import ConfigurationError, ContextLengthExceeded, Unavailable
from llm.request import GenerationRequest
from llm.sampling import SamplingParams
from tests.llm.prompts.rendered import TINY, asked

ENDLESS = "python:tests.llm.models.endless_chat"


def ignore(*_: Any) -> None:
    """For a progress nobody watches."""


class Answer:
    """Follows one generation."""

    def __init__(self, backend: LocalBackend, request: GenerationRequest) -> None:
        self.pieces: list[Piece] = []
        self.end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()
        self.job = backend.start(backend.prepare(request), self.emit)

    def emit(self, event: Piece | End) -> None:
        if isinstance(event, End):
            self.end.set_result(event)
        else:
            assert not self.end.done()
            self.pieces.append(event)
            self.begun.set()

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@pytest.fixture
async def backend() -> AsyncIterator[LocalBackend]:
    backend = LocalBackend(Settings(model=ENDLESS, quantization="none", device="cpu", max_new_tokens=200))
    await backend.load(ignore)
    yield backend
    await backend.close()


async def test_dead_thread_is_told_after_all_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    died = asyncio.Event()
    backend = LocalBackend(Settings(model=ENDLESS, quantization="none", device="cpu", max_new_tokens=200))
    await backend.load(ignore, died.set)
    answers = [Answer(backend, asked("hello")) for _ in range(2)]
    for answer in answers:
        await answer.begun.wait()
    monkeypatch.setattr(EngineThread, "_obey", lambda _: {}["a bug"])
    await died.wait()
    assert [answer.end.result().reason for answer in answers] == ["error", "error"]
    assert (await Answer(backend, asked("hello")).end).reason == "interrupted"
    await backend.close()


async def test_load_says_what_it_is() -> None:
    backend = LocalBackend(Settings(model=TINY, quantization="none", device="cpu", max_new_tokens=100))
    info = await backend.load(ignore)
    assert (info.name, info.context_length, info.mode) == ("tiny_chat", 512, "packed batching, cpu, float32")
    assert (info.sampling.temperature, info.sampling.top_p) == (0.7, 0.95)  # ours: it has none
    await backend.close()
    await backend.close()


async def test_answers_at_the_same_time(backend: LocalBackend) -> None:
    params = SamplingParams(temperature=0.0, max_new_tokens=30)
    answers = [Answer(backend, asked("hello " * (i + 1), params=params)) for i in range(4)]
    ends = [await answer.end for answer in answers]
    assert [end.reason for end in ends] == ["length"] * 4
    for answer, end in zip(answers, ends, strict=True):
        assert end.usage.completion_tokens == sum(piece.tokens for piece in answer.pieces) == 30
        assert end.usage.prompt_tokens > 10
    alone = Answer(backend, asked("hello " * 2, params=params))
    await alone.end
    assert alone.text == answers[1].text


async def test_a_second_turn_computes_only_what_is_new(backend: LocalBackend) -> None:
    """`cached_tokens` says what was there; another conversation has of it what the operator says."""
    params = SamplingParams(temperature=0.0, max_new_tokens=30)
    texts = ["hello " * 10]
    found = {}
    for name in ("a", "a", "b"):
        answer = Answer(backend, asked(*texts, params=params, conversation=name))
        usage = (await answer.end).usage
        found[name] = usage.cached_tokens
        if len(texts) == 1:
            first = usage
            texts += [answer.text, "go on"]
    opening = len(backend._renderer._opening)  # type: ignore[union-attr]
    assert opening > 5
    assert found["b"] == opening
    # the text of random tokens may be written in other tokens
    assert opening < first.prompt_tokens <= found["a"] <= first.prompt_tokens + 30


async def test_max_new_tokens_is_cut_to_the_setting(backend: LocalBackend) -> None:
    answer = Answer(backend, asked("hello", params=SamplingParams(temperature=0.0, max_new_tokens=10_000)))
    assert (await answer.end).usage.completion_tokens == 200


async def test_cancel(backend: LocalBackend) -> None:
    answer = Answer(backend, asked("hello"))
    await answer.begun.wait()
    answer.job.cancel()
    answer.job.cancel()
    assert (await answer.end).reason == "cancelled"
    answer.job.cancel()


async def test_stop_strings(backend: LocalBackend) -> None:
    whole = Answer(backend, asked("hello"))
    await whole.end
    stop = whole.text[10:13]
    answer = Answer(backend, asked("hello", params=SamplingParams(temperature=0.0, stop=(stop,))))
    assert (await answer.end).reason == "stop"
    assert answer.text == whole.text[: whole.text.index(stop)]


async def test_a_stop_string_that_was_cut_in_two_ends_an_answer_that_goes_on(backend: LocalBackend) -> None:
    goes_on = Answer(backend, asked("hello", "I am"))
    await goes_on.end
    stop = "am" + goes_on.text[:2]
    answer = Answer(backend, asked("hello", "I am", params=SamplingParams(temperature=0.0, stop=(stop,))))
    assert (await answer.end).reason == "stop"
    assert answer.text == ""


async def test_an_answer_says_how_many_old_turns_its_prompt_left_out(backend: LocalBackend) -> None:
    params = SamplingParams(temperature=0.0, max_new_tokens=5)
    left_out = []
    for turns in (0, 3, 30):
        answer = Answer(backend, asked(*["hello " * 5, "so so"] * turns, "and now?", params=params))
        left_out.append((await answer.end).usage.left_out_turns)
    assert left_out[:2] == [0, 0]
    assert 10 < left_out[2] < 30


async def test_close_interrupts_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    backend = LocalBackend(Settings(model=ENDLESS, quantization="none", device="cpu", max_new_tokens=400))
    await backend.load(ignore)
    answer = Answer(backend, asked("hello"))
    await answer.begun.wait()
    await backend.close()
    assert (await answer.end).reason == "interrupted"
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "llm-engine"]


async def test_only_the_engine_has_threads_that_compute(backend: LocalBackend) -> None:
    """Loading had some of its own: more of them than cores slow each other down."""
    await asyncio.gather(*(Answer(backend, asked("hello")).end for _ in range(2)))
    named = [thread.name for thread in threading.enumerate() if thread.name.startswith(("llm", "asyncio"))]
    assert named == ["llm-engine"]


async def test_before_it_is_loaded() -> None:
    backend = LocalBackend(Settings(model=TINY))
    with pytest.raises(Unavailable):
        backend.prepare(asked("hello"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"max_new_tokens": 512}, "LLM_MAX_NEW_TOKENS=512: leaves no room"),
        ({"kv_tokens": 100}, "LLM_KV_TOKENS=100: memory for 100 tokens leaves no room for a prompt"),
        ({"context_length": 513}, "LLM_CONTEXT_LENGTH=513: this model can use 512 at most"),
        ({"model": "python:tests.llm.engine.test_alone.bloom_chat"}, "LLM_CONTEXT_LENGTH=auto: the model does not say"),
        ({"prompt": "tests.nowhere.Prompt"}, "LLM_PROMPT=tests.nowhere.Prompt"),
        (
            {"prompt": "tests.llm.prompts.test_rendering.AlwaysBroken"},
            "LLM_PROMPT=.*AlwaysBroken: makes no prompt",
        ),
    ],
)
async def test_settings_that_cannot_work(settings: dict[str, Any], line: str) -> None:
    backend = LocalBackend(
        Settings(**{"model": TINY, "quantization": "none", "device": "cpu", "max_new_tokens": 100, **settings})
    )
    with pytest.raises(ConfigurationError, match=line) as caught:
        await backend.load(ignore)
    assert "\n" not in str(caught.value)
    await backend.close()


async def test_memory_for_less_than_the_context_bounds_the_prompt() -> None:
    backend = LocalBackend(Settings(model=TINY, quantization="none", device="cpu", max_new_tokens=100, kv_tokens=200))
    info = await backend.load(ignore)
    assert (info.kv_tokens, info.largest_need) == (200, 200)
    params = SamplingParams(max_new_tokens=40)
    assert backend.prepare(asked("hello", params=params)).need < 100
    with pytest.raises(ContextLengthExceeded, match=r"may take 40; together they may have 200\."):
        backend.prepare(asked("word " * 60, params=params))
    await backend.close()


async def test_memory_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of this model takes 768 bytes: 3 layers of 2 key heads of 16 numbers of 4 bytes, keys and values."""
    settings = Settings(
        model=TINY, quantization="none", device="cpu", max_new_tokens=100, num_of_concurrent_executions=3
    )
    found = []
    for free in (4 * 768 * 1000, 1 << 40):
        monkeypatch.setattr("llm.backends.local.free_memory", lambda _, free=free: free)
        backend = LocalBackend(settings)
        found.append((await backend.load(ignore)).kv_tokens)
        await backend.close()
    assert found == [1000, 3 * 512]


@pytest.mark.model
async def test_the_bundled_model_chats(model_cache: str) -> None:
    backend = LocalBackend(Settings(var=model_cache, device="cpu", max_new_tokens=40))
    info = await backend.load(ignore)
    assert (info.name, info.context_length) == ("SmolLM2-135M-Instruct", 8192)
    answers = [Answer(backend, asked(text)) for text in ("Who is Alan Turing?", "Say hello.")]
    for answer in answers:
        await answer.end
    assert "mathematician" in answers[0].text
    await backend.close()
