"""Defines where generations come from: the local backend, or a server with an OpenAI-compatible API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from llm.backends.base import End, Piece
from llm.backends.local import LocalBackend
from llm.benchmark.chat import Chat
from llm.conf import Settings
from llm.control.budget import TokenBudget
from llm.errors import ConfigurationError, RequestError, one_line
from llm.prompts.rendering import Prepared
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import SamplingParams

TEXT = (Path(__file__).parent / "text.txt").read_text()
WORDS = TEXT.split()
SAMPLE = 12
"""Words of a sample."""
LONGEST_ANSWER = 1024


class Target(Protocol):
    """A source of generations. `context` is the longest it takes, prompt and answer together; 0 means not known."""

    name: str
    mode: str
    context: int

    async def open(self, tell: Callable[[str], None]) -> None:
        """Make the target ready. Raises ConfigurationError."""

    def text(self, number: int, tokens: int) -> str:
        """Return about that many tokens of text, another one for each number."""

    def chat(self, number: int, context: int) -> Chat:
        """Start a generation after a prompt of that many tokens, another one for each number."""

    def turn(self, messages: Sequence[ChatMessage], conversation: str, tokens: int) -> Chat:
        """Start the next answer of a conversation."""

    async def close(self) -> None: ...


def words(number: int, count: int) -> str:
    """Return that many words, different ones for each number."""
    start = number * 37 % len(WORDS)
    turned = WORDS[start:] + WORDS[:start]
    return " ".join((turned * (count // len(turned) + 1))[:count])


def asked(*messages: ChatMessage | str, conversation: str = "", max_new_tokens: int = 1) -> GenerationRequest:
    said = tuple(ChatMessage("user", each) if isinstance(each, str) else each for each in messages)
    params = SamplingParams(temperature=0.0, max_new_tokens=max_new_tokens)
    return GenerationRequest(messages=said, params=params, conversation=conversation)


class LocalTarget:
    """The local backend as it is, without the controller. Answers do not end by themselves.

    The memory that all chats need at once is counted here.
    """

    def __init__(self, settings: Settings) -> None:
        self._backend = LocalBackend(settings)
        self.name, self.mode, self.context = "", "", 0

    async def open(self, tell: Callable[[str], None]) -> None:
        info = await self._backend.load(lambda what, done: tell(what if done is None else f"{what} {done:.0%}"))
        self.name, self.mode, self.context = info.name, info.mode, info.context_length
        self._memory: TokenBudget[LocalChat] = TokenBudget(info.kv_tokens)
        self._words_per_token = SAMPLE / (self._tokens(SAMPLE) - self._tokens(0))

    def text(self, number: int, tokens: int) -> str:
        return words(number, int(tokens * self._words_per_token))

    def chat(self, number: int, context: int) -> Chat:
        """Start after a short prompt, repeated: what it says makes no difference to the time it takes."""
        prepared = self._backend.prepare(asked(f"{number}. {words(number, SAMPLE)}"))
        tokens = (prepared.tokens * (context // len(prepared.tokens) + 1))[:context]
        answer = min(LONGEST_ANSWER, max(1, self.context - context))
        return LocalChat(self._backend, self._memory, prepared._replace(tokens=tokens, max_new_tokens=answer, common=0))

    def turn(self, messages: Sequence[ChatMessage], conversation: str, tokens: int) -> Chat:
        prepared = self._backend.prepare(asked(*messages, conversation=conversation, max_new_tokens=tokens))
        return LocalChat(self._backend, self._memory, prepared)

    def _tokens(self, count: int) -> int:
        return len(self._backend.prepare(asked(words(0, count))).tokens)

    async def close(self) -> None:
        await self._backend.close()


class LocalChat(Chat):
    """A chat with the local backend. Raises RequestError if there is no memory for it beside the others."""

    def __init__(self, backend: LocalBackend, memory: TokenBudget[LocalChat], prepared: Prepared) -> None:
        super().__init__()
        if not memory.reserve(self, prepared.need):
            raise RequestError(
                f"{memory.reserved} of {memory.tokens} token places are taken, and this chat needs {prepared.need}; "
                "set LLM_KV_TOKENS, or ask for fewer chats"
            )
        self._memory = memory
        self.prompt_tokens = len(prepared.tokens)
        endless = prepared._replace(stop_tokens=frozenset(), stop_strings=())
        self._job = backend.start(endless, self._take)

    def cancel(self) -> None:
        self._job.cancel()

    def _take(self, event: Piece | End) -> None:
        if isinstance(event, Piece):
            self.took(event.text, event.tokens)
            return
        self.cached_tokens = event.usage.cached_tokens
        self._memory.release(self)
        self.ends((event.message or event.reason) if event.reason == "error" else "")


class ServerTarget:
    """A server. What it streams in one chunk counts as one token, corrected by the usage it reports."""

    def __init__(self, url: str, model: str) -> None:
        self._url = url
        self._model = model
        self._opened: openai.AsyncOpenAI | None = None
        self.name, self.mode, self.context = model, url, 0

    async def open(self, tell: Callable[[str], None]) -> None:
        tell("asking for its models")
        try:
            self._opened = openai.AsyncOpenAI(base_url=self._url, max_retries=0)
            listed = [] if self._model else (await self._client.models.list()).data
            self._model = self._model or (listed[0].id if listed else "")
        except Exception as error:  # the library raises whatever comes of an answer that it did not expect
            raise ConfigurationError(f"--url {self._url}: is of no use ({one_line(error)}); check it") from error
        if not self._model:
            raise ConfigurationError(f"--url {self._url}: it lists no models; give --model")
        self.name = self._model

    def text(self, number: int, tokens: int) -> str:
        return words(number, tokens * 3 // 4)

    def chat(self, number: int, context: int) -> Chat:
        text = f"{number}. Go on with this story, as long as you can. {self.text(number, context)}"
        return self.turn([ChatMessage("user", text)], "", LONGEST_ANSWER)

    def turn(self, messages: Sequence[ChatMessage], conversation: str, tokens: int) -> Chat:
        return ServerChat(self._client, self._model, messages, tokens)

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    @property
    def _client(self) -> openai.AsyncOpenAI:
        if self._opened is None:
            raise RuntimeError("the target is not open")
        return self._opened


class ServerChat(Chat):
    def __init__(self, client: openai.AsyncOpenAI, model: str, messages: Sequence[ChatMessage], tokens: int) -> None:
        super().__init__()
        self._task = asyncio.create_task(self._run(client, model, messages, tokens))
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        self._task.cancel()

    async def _run(self, client: openai.AsyncOpenAI, model: str, messages: Sequence[ChatMessage], tokens: int) -> None:
        said = [{"role": message.role, "content": message.content} for message in messages]
        stream = await client.chat.completions.create(
            model=model,
            messages=cast("list[ChatCompletionMessageParam]", said),
            max_tokens=tokens,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
        )
        async with stream:
            async for chunk in stream:
                self._take(chunk)

    def _end(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self.ends(one_line(error) if isinstance(error, Exception) else "")

    def _take(self, chunk: ChatCompletionChunk) -> None:
        if chunk.choices and chunk.choices[0].delta.content:
            self.took(chunk.choices[0].delta.content, 1)
        if chunk.usage is None:
            return
        self.prompt_tokens = chunk.usage.prompt_tokens
        details = chunk.usage.prompt_tokens_details
        self.cached_tokens = (details.cached_tokens if details else None) or 0
        chunks, tokens = len(self.times), chunk.usage.completion_tokens
        if 0 < chunks < tokens:
            self.times = [self.times[i * chunks // tokens] for i in range(tokens)]
