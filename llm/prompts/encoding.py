"""Turns a rendered prompt into token ids; control tokens (`<|im_end|>`) that people spell in their texts stay text.

So nobody writes turns into a prompt that are not theirs. The module knows neither requests nor lengths.
"""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from llm.errors import panics_raised
from llm.prompts.base import ChatPrompt
from llm.prompts.spelling import Found, Spelling, with_texts
from llm.request import ChatMessage

Build = Callable[[str, Sequence[ChatMessage]], ChatPrompt]
"""build(system prompt, messages): makes the prompt of a conversation."""


class Encoder:
    """Renders prompts and encodes them with one tokenizer; several threads may do so at once.

    Control tokens are the tokenizer's special tokens, and `ends` if they are added tokens: the ids that end an answer.
    A tokenizer written in Python is used by one thread at a time.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        added = {id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
        control = {id_: token for id_, token in added.items() if token.special or id_ in ends}
        self.special = {token.content: id_ for id_, token in control.items() if token.special}
        self._spelling = Spelling(token.content for token in control.values())
        fast = getattr(tokenizer, "backend_tokenizer", None) is not None
        self._lock: AbstractContextManager[Any] = nullcontext() if fast else threading.Lock()
        self._aliases = Aliases(tokenizer, control) if fast and control else None

    def encode(self, build: Build, system: str, messages: Sequence[ChatMessage]) -> tuple[list[int], ChatPrompt]:
        """Return the tokens of the prompt that `build` makes, and that prompt."""
        with self._lock:
            prompt = build(system, messages)
            text = prompt.render()
            texts = [system, *(message.content for message in messages)]
            if not self._spelling.spelled(texts):
                return self._tokens(text, prompt.add_special_tokens), prompt
            system, *contents = (marked := self._spelling.marked(texts)).texts
            other = build(system, with_texts(messages, contents)).render()
            text, found = self._spelling.whose(text, other, marked.marks)
            return self._apart(text, found, prompt.add_special_tokens), prompt

    def _apart(self, text: str, found: Sequence[Found], add_special_tokens: bool | None) -> list[int]:
        """Encode a prompt in which only those control tokens are some that the prompt class wrote."""
        if self._aliases is not None:
            return self._aliases.encode(text, found, add_special_tokens)
        return self._tokens("".join(replaced(text, found, lambda token: token, gapped)), add_special_tokens)

    def _tokens(self, text: str, add_special_tokens: bool | None) -> list[int]:
        return tokens(self._tokenizer, text, add_special_tokens)


class Aliases:
    """A copy of a fast tokenizer that knows its control tokens by names that nobody can spell, and by no others.

    So the borders of texts, blanks beside control tokens and words that span a text and what a template writes around
    it come out as ever. A few tokenizers have control tokens among the words that their model makes of plain text:
    these get a gap.
    """

    def __init__(self, tokenizer: Any, control: dict[int, Any]) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)
        secret = secrets.token_hex(8)
        self._names = {token.content: f"\ue000{secret}{id_:x}\ue001" for id_, token in control.items()}
        add = self._tokenizer.add_tokens  # what is special is taken for text, by `split_special_tokens`
        add([like(token, token.content, special=True) for token in control.values()], special_tokens=True)
        add([like(token, self._names[token.content], special=False) for token in control.values()])
        known = self._tokenizer.convert_tokens_to_ids
        self._ids = {known(self._names[token.content]): id_ for id_, token in control.items()}
        words = (token.content for id_, token in control.items() if id_ in self._encoded(token.content, False))
        self._gapped = {word: gapped(word) for word in words}

    def encode(self, text: str, found: Sequence[Found], add_special_tokens: bool | None) -> list[int]:
        named = replaced(text, found, self._names.__getitem__, lambda token: self._gapped.get(token, token))
        return [self._ids.get(token, token) for token in self._encoded("".join(named), add_special_tokens)]

    def _encoded(self, text: str, add_special_tokens: bool | None) -> list[int]:
        return tokens(self._tokenizer, text, add_special_tokens, split_special_tokens=True)


def like(token: Any, name: str, *, special: bool) -> Any:
    """Return an added token like `token`, of that name."""
    kept = {each: getattr(token, each) for each in ("single_word", "lstrip", "rstrip", "normalized")}
    return type(token)(name, special=special, **kept)


def replaced(
    text: str, found: Iterable[Found], own: Callable[[str], str], spelled: Callable[[str], str]
) -> Iterator[str]:
    """Yield a prompt in pieces, its control tokens replaced: its own by `own`, those of people's texts by `spelled`."""
    end = 0
    for one in found:
        yield text[end : one.start]
        yield (own if one.own else spelled)(text[one.start : one.end])
        end = one.end
    yield text[end:]


def gapped(token: str) -> str:
    """Return the spelling of a control token with a blank in it, for tokenizers that would take it for the token."""
    return f"{token[0]} {token[1:]}" if token[1:] else "\ufffd"


def tokens(tokenizer: Any, text: str, add_special_tokens: bool | None, **options: Any) -> list[int]:
    """Return the ids of a text; `add_special_tokens` None leaves it to the tokenizer whether it adds its own."""
    if add_special_tokens is not None:
        options["add_special_tokens"] = add_special_tokens
    with panics_raised():
        found: list[int] = tokenizer(text, **options)["input_ids"]
    return found
