"""Follows generations and notes the times of their tokens."""

from __future__ import annotations

import asyncio
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator

from llm.errors import RequestError


class Chat(ABC):
    """One generation. It begins when it is made; its tokens are as many as `times`."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.times: list[float] = []
        self.text = ""
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.over = False
        self.failure = ""
        self._news = asyncio.Event()

    @property
    def ttft(self) -> float:
        return self.times[0] - self.began

    async def reached(self, tokens: int) -> None:
        """Wait until the chat has that many tokens, or is over."""
        while len(self.times) < tokens and not self.over:
            self._news.clear()
            await self._news.wait()

    async def ended(self) -> None:
        await self.reached(sys.maxsize)

    @abstractmethod
    def cancel(self) -> None: ...

    def took(self, text: str, tokens: int) -> None:
        self.text += text
        self.times += [time.perf_counter()] * tokens
        self._news.set()

    def ends(self, failure: str = "") -> None:
        self.over, self.failure = True, failure
        self._news.set()


class Chats:
    """Some chats at once; all are over when the block that made them is left."""

    def __init__(self) -> None:
        self._chats: list[Chat] = []

    async def __aenter__(self) -> Chats:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cancel()

    def __iter__(self) -> Iterator[Chat]:
        return iter(self._chats)

    def __len__(self) -> int:
        return len(self._chats)

    def add(self, chat: Chat) -> Chat:
        self._chats.append(chat)
        return chat

    async def begun(self) -> None:
        """Wait until all have a token. Raises RequestError if one ends without."""
        for chat in self:
            await chat.reached(1)
            if not chat.times:
                raise RequestError(f"a chat ended without an answer: {chat.failure or 'no reason given'}")
        self.check()

    async def more(self, tokens: int) -> None:
        """Wait until each has that many more tokens than now, or has ended. Raises RequestError if one fails."""
        goals = [(chat, len(chat.times) + tokens) for chat in self]
        for chat, goal in goals:
            await chat.reached(goal)
        self.check()

    def check(self) -> None:
        """Raise RequestError if a chat has failed: what the others did since is no measurement."""
        for chat in self:
            if chat.failure:
                raise RequestError(f"a chat failed after {len(chat.times)} tokens: {chat.failure}")

    async def cancel(self) -> None:
        for chat in self:
            chat.cancel()
        for chat in self:
            await chat.ended()

    @property
    def rate(self) -> float:
        """Tokens a second of all chats, from the last chat's first token to the first chat's last one."""
        start, end = max(chat.times[0] for chat in self), min(chat.times[-1] for chat in self)
        if end <= start:
            raise RequestError("these chats never were in decode at the same time")
        return sum(start < moment <= end for chat in self for moment in chat.times) / (end - start)
