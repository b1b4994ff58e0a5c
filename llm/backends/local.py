"""Runs a model in this process: the backend that puts loading, prompts and text around the engine.

A request becomes token ids in `prepare` (worker threads) and an answer in the engine's thread. The backend knows no
queue and no limits but the model's own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from llm.backends.base import Emit, End, ModelInfo, Piece
from llm.backends.computing import computed
from llm.backends.forward import forward
from llm.conf import Settings
from llm.detokenizer import TextStream
from llm.engine import alone, verify
from llm.engine.layout import Layout
from llm.engine.program.program import Program
from llm.engine.sequence import Sequence
from llm.engine.step import Engine
from llm.engine.thread import EngineThread, Generation, Steps, Update
from llm.engine.warmup import paced
from llm.errors import ConfigurationError, Unavailable, Unsupported, one_line
from llm.events import Usage
from llm.loading.loader import LoadedModel, label, load
from llm.loading.memory import free_memory, give_back, lack_told, lacks
from llm.prompts.rendering import Prepared, Renderer
from llm.request import GenerationRequest
from llm.status import Progress

logger = logging.getLogger(__name__)

LONGEST = 1 << 24
"""Tokens of the longest plausible context; a tokenizer that does not know its own gives a number far above it."""


class LocalBackend:
    """One model of transformers: continuously batched or, if that would be wrong, one answer at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._renderer: Renderer | None = None
        self._longest = 0
        self._tokenizer: Any = None
        self._engine: EngineThread | None = None
        self._closed = False

    async def load(self, progress: Progress, died: Callable[[], None] = lambda: None) -> ModelInfo:
        with lack_told(label(self._settings)):
            loaded, renderer, engine, info = await computed(self._load, progress)
        self._renderer, self._longest, self._tokenizer = renderer, info.largest_need, loaded.tokenizer
        if not self._closed:
            stall_seconds = max(self._settings.stall_seconds, info.longest_step)
            loop = asyncio.get_running_loop()
            self._engine = EngineThread(engine, loop, died=died, stall_seconds=stall_seconds)
        return info

    def _load(self, progress: Progress) -> tuple[LoadedModel, Renderer, Steps, ModelInfo]:
        loaded = load(self._settings, progress)
        renderer = Renderer(self._settings, loaded)
        return loaded, renderer, *self._engine_for(loaded, progress)

    def _engine_for(self, loaded: LoadedModel, progress: Progress) -> tuple[Steps, ModelInfo]:
        """Return the engine that a model can be run by, and what the site may know of it."""
        context = context_length(self._settings, loaded)
        progress("checking the model", None)
        try:
            computes, numbers = forward(self._settings, loaded, context, progress)
        except Unsupported as reason:
            return self._alone(loaded, context, str(reason))
        mode = f"packed batching, {loaded.model.device}, {numbers}"
        if isinstance(computes, Program):
            computes.release()
        give_back()
        kv = kv_tokens(self._settings, context, computes.layout)
        engine = paced(Engine(computes, kv_tokens=kv), computes, context)
        return engine, self._info(loaded, context, mode, kv)

    def _alone(self, loaded: LoadedModel, context: int, reason: str) -> tuple[Steps, ModelInfo]:
        """Return the slower engine, for a model that cannot be batched, and what the site may know of it."""
        where = f"{loaded.model.device}, {str(loaded.model.dtype).removeprefix('torch.')}"
        kind = loaded.model.config.model_type
        try:
            engine = alone.tried(loaded.model)
        except Exception as error:
            if lacks(error):
                raise
            raise ConfigurationError(
                f"{label(self._settings)}: {kind} cannot be batched: {reason}; and it fails alone "
                f"({one_line(error)}); give a model of another architecture"
            ) from error
        logger.warning("%s cannot be batched: %s. It gives one answer at a time, which is slower.", kind, reason)
        mode = f"one answer at a time, {where} ({kind} cannot be batched: {reason})"
        kv = kv_tokens(self._settings, context)
        info = self._info(loaded, context, mode, kv)  # a long prompt is one step, and may take as long as an answer
        return engine, msgspec.structs.replace(info, places=1, longest_step=self._settings.generation_timeout)

    def _info(self, loaded: LoadedModel, context: int, mode: str, kv: int) -> ModelInfo:
        return ModelInfo(name=loaded.name, context_length=context, mode=mode, kv_tokens=kv, sampling=loaded.sampling)

    def prepare(self, request: GenerationRequest) -> Prepared:
        if self._renderer is None:
            raise Unavailable("The model is still loading.")
        return self._renderer.prepare(request, self._longest)

    def start(self, prepared: Prepared, emit: Emit) -> LocalJob:
        if self._engine is None:
            raise Unavailable("The model is not loaded.")
        sequence = Sequence(
            prepared.tokens,
            prepared.params,
            max_new_tokens=prepared.max_new_tokens,
            stop_tokens=prepared.stop_tokens,
            conversation=prepared.conversation,
            common=prepared.common,
        )
        text = TextStream(
            self._tokenizer, prepared.stop_strings, prepared.replacements, prepared.before, prepared.partial
        )
        job = LocalJob(self._engine, sequence, text, prepared.left_out, emit)
        self._engine.start(job.generation)
        return job

    @property
    def steps(self) -> int:
        return 0 if self._engine is None else self._engine.steps

    async def close(self) -> None:
        self._closed = True
        if self._engine is not None:
            await asyncio.to_thread(self._engine.stop)


class LocalJob:
    """One generation in the engine's thread; it counts the tokens that it used."""

    def __init__(self, engine: EngineThread, sequence: Sequence, text: TextStream, left_out: int, emit: Emit) -> None:
        self.generation = Generation(sequence, text, self._on_update)
        self._engine = engine
        self._emit = emit
        self._left_out = left_out
        self._completion_tokens = 0

    def cancel(self) -> None:
        self._engine.cancel(self.generation)

    def _on_update(self, update: Update) -> None:
        self._completion_tokens += update.tokens
        if update.text or update.tokens:
            self._emit(Piece(update.text, update.tokens))
        if update.finish is not None:
            sequence = self.generation.sequence
            usage = Usage(
                prompt_tokens=len(sequence.prompt),
                cached_tokens=sequence.cached,
                completion_tokens=self._completion_tokens,
                left_out_turns=self._left_out,
            )
            code = "error" if update.finish == "error" else None
            self._emit(End(reason=update.finish, usage=usage, code=code, message=update.message))


def context_length(settings: Settings, loaded: LoadedModel) -> int:
    """Return the most tokens of prompt and answer together: the model's own limit, or what the operator sets.

    `auto` is what can be batched; a few models can do more (LLM_CONTEXT_LENGTH), one answer at a time.
    """
    config, context = loaded.model.config, settings.context_length
    limit = verify.context_limit(config)
    if context == "auto":
        made_for = verify.packed_limit(config) or loaded.tokenizer.model_max_length
        if made_for > LONGEST:
            raise ConfigurationError("LLM_CONTEXT_LENGTH=auto: the model does not say how long it may be; set it")
        context = made_for
    elif limit is not None and context > limit:
        raise ConfigurationError(f"LLM_CONTEXT_LENGTH={context}: this model can use {limit} at most; set it to that")
    if settings.max_new_tokens >= context:
        raise ConfigurationError(
            f"LLM_MAX_NEW_TOKENS={settings.max_new_tokens}: leaves no room for a prompt in a context of {context} "
            f"tokens; set it to {context // 2} or less"
        )
    return context


def kv_tokens(settings: Settings, context: int, layout: Layout | None = None) -> int:
    """Return how many tokens' keys and values may be kept in all; called when the weights have their memory already.

    `auto` takes a quarter of the free memory: rows are as long as the next power of two, so that at worst twice as much
    is in use. Without a layout (what the model keeps is its own affair) it is one whole context.
    """
    if settings.kv_tokens != "auto":
        tokens = settings.kv_tokens
    elif layout is None:
        tokens = context
    else:
        tokens = free_memory(layout.device) // 4 // layout.token_bytes
        tokens = min(tokens, settings.num_of_concurrent_executions * context)
    if tokens <= settings.max_new_tokens:
        raise ConfigurationError(
            f"LLM_KV_TOKENS={settings.kv_tokens}: memory for {tokens} tokens leaves no room for a prompt beside an "
            f"answer of LLM_MAX_NEW_TOKENS={settings.max_new_tokens}"
        )
    return tokens
