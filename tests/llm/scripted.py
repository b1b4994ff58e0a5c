"""A backend that does what a test tells it: nothing is generated before the test says so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import NamedTuple

from llm.backends.base import Emit, End, ModelInfo, Piece
from llm.errors import ConfigurationError, RequestError
from llm.events import FinishReason, Usage
from llm.request import ChatMessage, GenerationRequest
from llm.status import Progress


class ScriptedJob:
    def __init__(self, prompt: str, need: int, emit: Emit) -> None:
        self.prompt = prompt
        self.need = need
        self.cancels = 0
        self.cancelled = asyncio.Event()
        self._emit = emit

    def cancel(self) -> None:
        self.cancels += 1
        self.cancelled.set()

    def say(self, text: str) -> None:
        self._emit(Piece(text, 1))

    def end(self, reason: FinishReason = "stop", completion_tokens: int = 1) -> None:
        self._emit(End(reason=reason, usage=Usage(prompt_tokens=3, completion_tokens=completion_tokens)))


class ScriptedPrompt(NamedTuple):
    text: str
    need: int


class ScriptedBackend:
    """`jobs` are the generations that were started, in order; a prompt "too long" or "broken" fails.

    A prompt needs one token place, or as many as the number behind its colon says. With `gate` closed, prompts are
    prepared when it opens.
    """

    def __init__(self, load_error: str | None = None, *, context: int = 100, kv_tokens: int = 1_000_000) -> None:
        self.context, self.kv_tokens = context, kv_tokens
        self.gate = threading.Event()
        self.gate.set()
        self.jobs: list[ScriptedJob] = []
        self.closed = False
        self.steps = 0
        self.longest_step = 0.0
        self._load_error = load_error

    async def load(self, progress: Progress, died: Callable[[], None] = lambda: None) -> ModelInfo:
        self.die = died
        if self._load_error is not None:
            raise ConfigurationError(self._load_error)
        return ModelInfo(
            name="scripted",
            context_length=self.context,
            mode="scripted",
            kv_tokens=self.kv_tokens,
            longest_step=self.longest_step,
        )

    def prepare(self, request: GenerationRequest) -> ScriptedPrompt:
        self.gate.wait(10)
        prompt = request.messages[-1].content
        if prompt == "too long":
            raise RequestError("The prompt is too long.")
        text, _, need = prompt.partition(":")
        return ScriptedPrompt(text, int(need or 1))

    def start(self, prepared: ScriptedPrompt, emit: Emit) -> ScriptedJob:
        if prepared.text == "broken":
            raise ZeroDivisionError
        job = ScriptedJob(prepared.text, prepared.need, emit)
        self.jobs.append(job)
        return job

    async def close(self) -> None:
        self.closed = True


def request(text: str = "hello") -> GenerationRequest:
    return GenerationRequest(messages=(ChatMessage("user", text),))
