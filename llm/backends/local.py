"""The backend that runs a model itself: loading, prompts and text around the engine.

A request becomes token ids in `prepare` (worker threads) and an answer in the engine's thread. Knows no queue and no
limits but the model's own.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from llm.backends.base import Emit, End, ModelInfo, Piece, Progress
from llm.conf import Settings
from llm.engine import verify
from llm.engine.core import Engine
from llm.engine.model import PackedModel
from llm.engine.sequence import Sequence
from llm.engine.thread import EngineThread, Generation, Update
from llm.errors import ConfigurationError, Unavailable
from llm.events import Usage
from llm.loading import LoadedModel, label, load
from llm.rendering import Prepared, Renderer
from llm.request import GenerationRequest
from llm.text import TextStream

logger = logging.getLogger(__name__)


class LocalBackend:
    """One model of transformers, continuously batched."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._renderer: Renderer | None = None
        self._tokenizer: Any = None
        self._engine: EngineThread | None = None
        self._closed = False

    async def load(self, progress: Progress) -> ModelInfo:
        loaded, forward = await asyncio.to_thread(self._load, progress)
        context = context_length(self._settings, loaded)
        self._renderer = Renderer(self._settings, loaded, context)
        self._tokenizer = loaded.tokenizer
        if not self._closed:
            self._engine = EngineThread(
                Engine(forward), asyncio.get_running_loop(), stall_seconds=self._settings.stall_seconds
            )
        layout = forward.layout
        mode = f"packed batching, {layout.device}, {str(layout.dtype).removeprefix('torch.')}"
        return ModelInfo(name=loaded.name, context_length=context, mode=mode)

    def _load(self, progress: Progress) -> tuple[LoadedModel, PackedModel]:
        loaded = load(self._settings, progress)
        progress("checking the model", None)
        try:
            return loaded, verify.packed(loaded.model)
        except verify.Unsupported as error:
            raise ConfigurationError(
                f"{label(self._settings)}: {loaded.model.config.model_type} cannot be batched: {error}; "
                "give a model of another architecture"
            ) from error

    def prepare(self, request: GenerationRequest) -> Prepared:
        if self._renderer is None:
            raise Unavailable("The model is still loading.")
        return self._renderer.prepare(request)

    def start(self, prepared: Prepared, emit: Emit) -> LocalJob:
        if self._engine is None:
            raise Unavailable("The model is not loaded.")
        sequence = Sequence(
            prepared.tokens,
            prepared.params,
            max_new_tokens=prepared.max_new_tokens,
            stop_tokens=prepared.stop_tokens,
        )
        text = TextStream(self._tokenizer, prepared.stop_strings, prepared.replacements)
        job = LocalJob(self._engine, sequence, text, emit)
        self._engine.start(job.generation)
        return job

    async def close(self) -> None:
        self._closed = True
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)


class LocalJob:
    """One generation; counts what it used."""

    def __init__(self, engine: EngineThread, sequence: Sequence, text: TextStream, emit: Emit) -> None:
        self.generation = Generation(sequence, text, self._on_update)
        self._engine = engine
        self._emit = emit
        self._prompt_tokens = len(sequence.prompt)
        self._completion_tokens = 0

    def cancel(self) -> None:
        self._engine.cancel(self.generation)

    def _on_update(self, update: Update) -> None:
        self._completion_tokens += update.tokens
        if update.text or update.tokens:
            self._emit(Piece(update.text, update.tokens))
        if update.finish is not None:
            usage = Usage(prompt_tokens=self._prompt_tokens, completion_tokens=self._completion_tokens)
            code = "error" if update.finish == "error" else None
            self._emit(End(reason=update.finish, usage=usage, code=code, message=update.message))


def context_length(settings: Settings, loaded: LoadedModel) -> int:
    """Tokens of prompt and answer together: what the model was made for, or fewer where the operator says so."""
    limit = verify.context_limit(loaded.model.config)
    context = settings.context_length
    if context == "auto":
        if limit is None:
            raise ConfigurationError("LLM_CONTEXT_LENGTH=auto: the model does not say how long it may be; set it")
        context = limit
    elif limit is not None and context > limit:
        raise ConfigurationError(f"LLM_CONTEXT_LENGTH={context}: this model can use {limit} at most; set it to that")
    if settings.max_new_tokens >= context:
        raise ConfigurationError(
            f"LLM_MAX_NEW_TOKENS={settings.max_new_tokens}: leaves no room for a prompt in a context of {context} "
            f"tokens; set it to {context // 2} or less"
        )
    return context
