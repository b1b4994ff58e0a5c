"""Turns a rendered prompt into token ids; texts of people that spell control tokens (`<|im_end|>`) stay text.

So nobody writes turns into a prompt that are not theirs. The module knows neither requests nor lengths.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from llm.prompts.base import ChatPrompt


class Encoder:
    """Encodes prompts with one tokenizer, one at a time: a tokenizer is not made for several threads."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self.special = {token.content: id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._spelled = re.compile("|".join(map(re.escape, self.special))) if self.special else None

    def encode(self, prompt: ChatPrompt) -> list[int]:
        with self._lock:
            if self._spelled and any(map(self._spelled.search, texts_of(prompt))):
                return self._encode_apart(prompt)
            return self._tokens(prompt.render(), prompt.add_special_tokens)

    def _encode_apart(self, prompt: ChatPrompt) -> list[int]:
        """Encode texts that spell control tokens on their own, as text.

        The prompt is rendered with marks in their places. Elsewhere this is not done: a tokenizer may join characters
        across the borders of a text, and the model has learnt them so.
        """
        marks = Marks(prompt)
        tokens: list[int] = []
        for i, (part, is_text) in enumerate(marks.split(prompt.render())):
            if is_text:
                tokens += self._tokens(part, False, split_special_tokens=True)
            elif part:
                tokens += self._tokens(part, prompt.add_special_tokens if i == 0 else False)
        return tokens

    def _tokens(self, text: str, add_special_tokens: bool | None, **options: Any) -> list[int]:
        if add_special_tokens is not None:
            options["add_special_tokens"] = add_special_tokens
        tokens: list[int] = self._tokenizer(text, **options)["input_ids"]
        return tokens


def texts_of(prompt: ChatPrompt) -> list[str]:
    """Return the texts that people wrote: everything in a prompt that is not the prompt class's own."""
    return [prompt.system, prompt.partial, *(content.message for content in prompt.chat_contents if content.message)]


class Marks:
    """Puts a mark in the place of each text of a prompt, and finds the texts again in the rendered prompt."""

    def __init__(self, prompt: ChatPrompt) -> None:
        self._texts: dict[str, str] = {}
        prompt.set_system(self._mark(prompt.system))
        prompt.partial = self._mark(prompt.partial)
        for content in prompt.chat_contents:
            if content.message:
                content.set_message(self._mark(content.message))

    def _mark(self, text: str) -> str:
        if not text:
            return text
        mark = f"\ue000{len(self._texts)}\ue001"
        self._texts[mark] = text
        return mark

    def split(self, rendered: str) -> list[tuple[str, bool]]:
        """Return the parts of a rendered prompt, and whether each is a text that was marked."""
        parts = re.split("(\ue000\\d+\ue001)", rendered)
        return [(self._texts.get(part, part), part in self._texts) for part in parts]
