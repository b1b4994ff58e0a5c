"""Tells control tokens that a prompt class writes from those that people spell in their texts (`<|im_end|>`).

A prompt is rendered twice where somebody does: from the true texts, which is what the model reads, and from texts of
the same lengths with marks in the place of what they spell, which shows whose each control token is. So templates see
the texts as they are, whatever they do with them. The module knows no token ids.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from llm.request import ChatMessage

PRIVATE = range(0xF0000, 0x10FFFE)
"""Code points that stand for nothing. Marks are some that no text has."""


class Found(NamedTuple):
    """A control token in a rendered prompt: its place, and whether the prompt class wrote it."""

    start: int
    end: int
    own: bool


class Spelling:
    """Finds the control tokens of one tokenizer, the longest at each place, in texts and in rendered prompts."""

    def __init__(self, control: Iterable[str]) -> None:
        tokens = set(control)
        self._pattern = re.compile(one_of(tokens) or "(?!)")
        self._characters = "".join(sorted({character for token in tokens for character in token if character.strip()}))

    def spelled(self, texts: Iterable[str]) -> bool:
        """Return whether one of the texts spells a control token."""
        return any(map(self._pattern.search, texts))

    def marked(self, texts: Sequence[str]) -> Marked:
        """Return the texts with a mark for each character of what they spell, but for blanks."""
        taken = set().union(*texts)
        unused = (code for code in PRIVATE if chr(code) not in taken)
        marks = {ord(character): next(unused) for character in self._characters}
        return Marked(
            [self._pattern.sub(lambda match: match[0].translate(marks), text) for text in texts],
            {mark: character for character, mark in marks.items()},
        )

    def all_own(self, prompt: str) -> list[Found]:
        """Return the control tokens of a prompt for which no text spells any."""
        return [Found(*match.span(), own=True) for match in self._pattern.finditer(prompt)]

    def whose(self, prompt: str, marked: str, marks: dict[int, int]) -> tuple[str, list[Found]]:
        """Return the text that the model is to read, and its control tokens.

        `prompt` was rendered from the true texts, `marked` from the marked ones. Usually both have the same control
        tokens in the same order. A template may also have taken what was spelled out of the true texts, or written it
        in another way: what is left is its own. Where a template makes of the marked texts something that cannot be
        compared with that, its prompt from the marked texts is what counts: no text becomes a control token.
        """
        plain = marked.translate(marks)
        found = [
            Found(*match.span(), own=marked[slice(*match.span())] == match[0])
            for match in self._pattern.finditer(plain)
        ]
        in_prompt = self.all_own(prompt)
        spelled = [prompt[one.start : one.end] for one in in_prompt]
        if spelled == [plain[one.start : one.end] for one in found]:
            return prompt, [one._replace(own=other.own) for one, other in zip(in_prompt, found, strict=True)]
        if spelled == [plain[one.start : one.end] for one in found if one.own]:
            return prompt, in_prompt
        return plain, found


class Marked(NamedTuple):
    """Texts with marks, and the character that each mark stands for."""

    texts: list[str]
    marks: dict[int, int]


def one_of(strings: Collection[str]) -> str:
    """Return a pattern that matches the longest of the strings, letter by letter: some tokenizers have thousands."""
    tails: dict[str, list[str]] = {}
    for string in filter(None, strings):
        tails.setdefault(string[0], []).append(string[1:])
    branches = "|".join(re.escape(letter) + one_of(rest) for letter, rest in tails.items())
    if len(tails) > 1 or (tails and "" in strings):
        branches = f"(?:{branches})"
    return f"{branches}?" if tails and "" in strings else branches


def with_texts(messages: Sequence[ChatMessage], texts: Iterable[str]) -> list[ChatMessage]:
    """Return the messages with these texts in the place of their own."""
    return [ChatMessage(message.role, text) for message, text in zip(messages, texts, strict=True)]
