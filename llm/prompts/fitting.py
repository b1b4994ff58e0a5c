"""Fits conversations into the context: what does not fit loses whole turns, the oldest first.

The system prompt and the last turn always stay. What is tokenised is bounded, however long a conversation is: by
characters before the first token is counted, and since the tokens of a turn are counted once. The module knows neither
templates nor tokenizers, only a function that makes tokens of messages. It is called from several threads at once.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from llm.errors import ContextLengthExceeded
from llm.prompts.base import ChatPrompt
from llm.request import ChatMessage
from llm.turns import Turn, Turns, characters, in_turns, left_out

CHARACTERS = 8
"""Characters to a token that old turns may have on average: languages have 4 or 5 at most, code has 3 or 4."""
MOST = 32
"""Characters to a token that the texts that have to stay may have on average; with more they are not even counted."""
KEPT = 50_000
"""Turns whose counts are kept, the latest used; each takes some 200 bytes."""
PROBE = ChatMessage("user", "Aa")

Render = Callable[[str, Sequence[ChatMessage]], tuple[list[int], ChatPrompt]]
"""render(system prompt, messages): gives the tokens of the prompt, and the prompt."""


class Fitted(NamedTuple):
    """A prompt that fits; `left_out` turns of the conversation are not in it."""

    tokens: list[int]
    prompt: ChatPrompt
    left_out: int


class TooLong(Exception):
    """Raised when nothing can be left out any more; its text is the size of what stays."""


class Fitter:
    """Fits conversations, each with the same system prompt unless it has one of its own."""

    def __init__(self, render: Render, system: str) -> None:
        self._render = render
        self._system = system
        self._counts = TurnCounts(self._count)
        self._probe = len(render("", [PROBE])[0])

    def fitted(self, messages: Sequence[ChatMessage], longest: int, answer: int) -> Fitted:
        """Return the prompt of all turns, or of as many as have `longest` tokens together with those of the answer.

        Raises ContextLengthExceeded where the system prompt and the last turn alone have more.
        """
        room = longest - answer
        try:
            return self._fitted(messages, room)
        except TooLong as error:
            raise ContextLengthExceeded(
                f"The prompt has {error} and the answer may take {answer}; together they may have {longest}."
            ) from None

    def _fitted(self, messages: Sequence[ChatMessage], room: int) -> Fitted:
        conversation = in_turns(messages)
        old = conversation.turns[:-1]
        others = len(self._system) + characters(*conversation.without(len(old)))
        if others > room * MOST:
            raise TooLong(f"{others} characters")
        sizes = [characters(*turn) for turn in old]
        gone = left_out(sizes, others, room * CHARACTERS)
        if others + sum(sizes[gone:]) <= room:  # then it is likely to fit, and nothing needs to be counted
            whole = self._without(conversation, gone)
            if len(whole.tokens) <= room:
                return whole
        return self._counted(conversation, old, gone, room)

    def _counted(self, conversation: Turns, old: Sequence[Turn], gone: int, room: int) -> Fitted:
        """Return the prompt without as many turns as their counts say, and without all where these mislead."""
        shortest = self._without(conversation, len(old))
        if len(shortest.tokens) > room:
            raise TooLong(f"{len(shortest.tokens)} tokens")
        counts = [self._counts(turn) for turn in old[gone:]]
        others = len(shortest.tokens)
        for _ in range(2):
            more = left_out(counts, others, room)
            found = self._without(conversation, gone + more)
            if len(found.tokens) <= room:
                return found
            others = len(found.tokens) - sum(counts[more:])  # the turns are so much longer together than one by one
        return shortest

    def _without(self, conversation: Turns, gone: int) -> Fitted:
        return Fitted(*self._render(self._system, conversation.without(gone)), gone)

    def _count(self, turn: Turn) -> int:
        """Return how many tokens a turn adds to a prompt that goes on after it."""
        return len(self._render("", [*turn, PROBE])[0]) - self._probe


class TurnCounts:
    """Counts the tokens of turns, each of them once. It keeps no texts."""

    def __init__(self, count: Callable[[Turn], int], most: int = KEPT) -> None:
        self._count = count
        self._most = most
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, turn: Turn) -> int:
        key = digest(turn)
        with self._lock:
            if key in self._counts:
                self._counts.move_to_end(key)
                return self._counts[key]
        count = self._count(turn)
        with self._lock:
            self._counts[key] = count
            while len(self._counts) > self._most:
                self._counts.popitem(last=False)
        return count


def digest(turn: Turn) -> bytes:
    found = hashlib.blake2b(digest_size=16)
    for message in turn:
        content = message.content.encode()
        found.update(b"%s %d " % (message.role.encode(), len(content)))
        found.update(content)
    return found.digest()
