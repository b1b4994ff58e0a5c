"""Requests, and prompts made of them for a tiny model or for a template alone."""

from __future__ import annotations

from typing import Any

from llm.conf import Settings
from llm.loading.loader import LoadedModel
from llm.prompts.rendering import Prepared, Renderer
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams
from tests.llm.models import tiny_chat

GREEDY = SamplingParams(temperature=0.0)
TINY = "python:tests.llm.models.tiny_chat"


class Rendering:
    """Renders for a context of so many tokens."""

    def __init__(self, context: int, settings: Settings, loaded: LoadedModel) -> None:
        self._context = context
        self._renderer = Renderer(settings, loaded)

    def prepare(self, request: GenerationRequest) -> Prepared:
        return self._renderer.prepare(request, self._context)


def renderer(context: int = 1024, **settings: Any) -> Rendering:
    return Rendering(context, Settings(model=TINY, **settings), LoadedModel("tiny", *tiny_chat()))


def asked(*texts: str, system: str = "", params: SamplingParams = GREEDY, conversation: str = "") -> GenerationRequest:
    """A conversation whose texts alternate, the visitor's first."""
    messages = [ChatMessage("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)]
    if system:
        messages.insert(0, ChatMessage("system", system))
    return GenerationRequest(messages=tuple(messages), params=params, conversation=conversation)


class NamedEnds:
    """The part of a loaded model that a renderer needs, without a model; `stop_tokens` are those of its files."""

    sampling = SamplingParams()
    vocabulary = 1000

    def __init__(self, tokenizer: Any, stop_tokens: frozenset[int] = frozenset()) -> None:
        self.tokenizer = tokenizer
        self.stop_tokens = stop_tokens


class Shown:
    """What a model with this tokenizer, or this template, is shown of a conversation."""

    def __init__(self, tokenizer: Any, template: str | None = None, *, ends: set[int] | None = None, **settings: Any):
        self.tokenizer = tokenizer
        if template is not None:
            tokenizer.chat_template = template
        model = NamedEnds(tokenizer, frozenset(ends or ()))
        self._renderer = Renderer(Settings(model="test", **settings), model)

    def prepared(self, *texts: str, system: str = "", context: int = 100_000) -> Prepared:
        return self._renderer.prepare(asked(*texts, system=system), context)

    def tokens(self, *texts: str, system: str = "") -> list[int]:
        return self.prepared(*texts, system=system).tokens

    def text(self, *texts: str, system: str = "") -> str:
        text: str = self.tokenizer.decode(self.tokens(*texts, system=system))
        return text
