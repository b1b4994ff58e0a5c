"""Contexts of thousands of tokens, and more of them than memory holds, are answered exactly and in turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from transformers import LlamaConfig

from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.control.generation import Generation
from llm.engine import verify
from llm.engine.program.startup import programmed
from llm.engine.step import Engine
from llm.events import Delta, Event, Finished, Queued, Started
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams
from tests.llm.backends.test_local import ENDLESS
from tests.llm.engine.test_step import prompt, run, sequence
from tests.llm.models import SIZES, generated, randomised

CONTEXT, LONG, BESIDE = 8192, 4000, 15
NEW = 12


@pytest.mark.parametrize("step", ["modules", "program"])
def test_short_ones_beside_a_long_one_equal_generate(step: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before its prompt is computed, which takes many chunks, and while all are in decode."""
    model = randomised(LlamaConfig(**SIZES, num_key_value_heads=2, max_position_embeddings=CONTEXT))
    prompts = [prompt(LONG), *(prompt(20 + 3 * number) for number in range(BESIDE))]
    expected = [generated(model, tokens, NEW, eos_token_id=None) for tokens in prompts]
    forward = verify.packed(model, CONTEXT)
    computes = forward if step == "modules" else programmed(forward, tmp_path_factory.mktemp("programs"))
    long, *early = [sequence(tokens, NEW) for tokens in prompts]
    late = [sequence(tokens, NEW) for tokens in prompts[1:]]
    engine = Engine(computes, chunk_tokens=128)
    chunks = LONG // 128
    results = run(engine, {0: [long], 2: early, chunks + BESIDE: late})
    assert [one.generated for one in (long, *early)] == expected
    assert [one.generated for one in late] == expected[1:]
    spoke = [result.sequence for result in results]
    assert max(spoke.index(one) for one in early) < spoke.index(long), "a long prompt holds up nobody"
    assert spoke.index(late[0]) < len(spoke) - 1 - spoke[::-1].index(long), "it was in decode beside others"
    assert engine.cache.allocated_bytes == 0


# What visitors see of memory that is exhausted

Ask = Callable[..., Awaitable["Told"]]
FITTING = 16
ANSWER = 150


class Told:
    """What one visitor is told, and when in `order` of all that are told anything."""

    def __init__(self, order: list[tuple[Told, Event]]) -> None:
        self._order = order
        self.events: list[Event] = []
        self.text = ""
        self.end: asyncio.Task[Finished]

    def take(self, event: Event) -> None:
        self.events.append(event)
        self._order.append((self, event))
        self.text += event.text if isinstance(event, Delta) else ""

    async def follow(self, ticket: Generation, request: GenerationRequest) -> Finished:
        end = await ticket.run(request).into(self.take)
        self._order.append((self, end))
        return end


def question(text: str, new: int = ANSWER) -> GenerationRequest:
    params = SamplingParams(temperature=0.0, max_new_tokens=new)
    return GenerationRequest(messages=(ChatMessage("user", text),), params=params, conversation=text)


def settings(**values: int) -> Settings:
    places = {"num_of_concurrent_executions": 2 * FITTING, "max_new_tokens": ANSWER}
    return Settings(model=ENDLESS, device="cpu", quantization="none", **{**places, **values})  # type: ignore[arg-type]


@pytest.fixture
async def need() -> AsyncIterator[int]:
    """Of the question that all ask."""
    backend = LocalBackend(settings())
    await backend.load(lambda *_: None)
    yield backend.prepare(question("hello 00")).need
    await backend.close()


async def serving(kv_tokens: int) -> GenerationController:
    limits = settings(kv_tokens=kv_tokens)
    controller = GenerationController(LocalBackend(limits), limits)
    await controller.load()
    return controller


async def test_who_finds_no_memory_is_first_in_line_and_gets_the_same_answer(
    need: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen fit, twice as many places are free: the seventeenth waits for memory, whatever else is asked later."""
    # each change is told, however soon the next one comes
    monkeypatch.setattr("llm.control.controller.TELL_EVERY", 0.0)
    controller = await serving(FITTING * need + need - 1)
    order: list[tuple[Told, Event]] = []
    everyone = [Told(order) for _ in range(FITTING + 2)]
    for number, told in enumerate(everyone):
        ticket = await controller.admit(f"visitor {number}")
        told.end = asyncio.create_task(told.follow(ticket, question(f"hello {number:02}")))
    ends = await asyncio.gather(*(told.end for told in everyone))
    assert [(end.reason, end.usage.completion_tokens) for end in ends] == [("length", ANSWER)] * len(everyone)
    ended, running, most = False, 0, 0
    for told, event in order:
        if isinstance(event, Started):
            running, most = running + 1, max(most, running + 1)
            assert ended or told not in everyone[FITTING:], "there was no memory for it yet"
        elif isinstance(event, Finished):
            running, ended = running - 1, True
    assert most == FITTING
    for place, told in enumerate(everyone[FITTING:], start=1):
        waits = [event for event in told.events if isinstance(event, Queued)]
        assert waits[-1].position <= place
        assert isinstance(told.events[len(waits)], Started)
    stats = await controller.stats()
    assert (stats.kv_reserved, stats.processing, stats.finished) == (0, 0, {"length": len(everyone)})
    await controller.aclose()

    alone = await serving(need)
    for told, text in ((everyone[0], "hello 00"), (everyone[FITTING], f"hello {FITTING}")):
        again = Told([])
        await again.follow(await alone.admit("visitor"), question(text))
        assert again.text == told.text
    await alone.aclose()


async def test_a_request_that_no_memory_is_enough_for_is_refused_in_a_line(need: int) -> None:
    controller = await serving(need)
    order: list[tuple[Told, Event]] = []
    good, bad = Told(order), Told(order)
    good.end = asyncio.create_task(good.follow(await controller.admit("one"), question("hello 00")))
    end = await bad.follow(await controller.admit("two"), question("word " * 40))
    assert (end.reason, end.code) == ("error", "context_length_exceeded")
    assert end.message is not None
    assert "\n" not in end.message
    assert f"the answer may take {ANSWER}; together they may have {need}." in end.message
    assert not any(isinstance(event, Started | Delta) for event in bad.events)
    assert (await good.end).reason == "length"
    await controller.aclose()
