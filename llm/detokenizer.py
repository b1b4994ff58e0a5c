"""Turns the tokens of one answer, as they come, into text that can be shown.

Three stages, each of which holds back as little as it may: tokens become characters (never half of one), stop strings
end the answer (wherever the token borders lie), and a prompt class's replacements are applied. The result does not
depend on how the text was cut into tokens. The module knows no engine and no threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

from llm.errors import panics_raised

INCOMPLETE = "\ufffd"
"""The character that a decoder puts in the place of bytes that are no character, or not yet a whole one."""
CONTEXT = 8
"""How many tokens back a decoder looks for one that can stand for the text before; no character has more bytes."""


class TextStream:
    """The text of one answer. `push` takes each token, `stopped` tells that a stop string was met.

    `before` are the tokens of a text that this one continues: some tokenizers write a word that begins a text without
    the space before it. `shown` is the end of that text as its reader has it: a stop string or a replacement may begin
    there. What is shown is not taken back: a stop string ends the answer then, and of a replacement comes the rest.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop: Sequence[str] = (),
        replacements: Sequence[tuple[str, str]] = (),
        before: Sequence[int] = (),
        shown: str = "",
    ) -> None:
        self._decode = token_decoder(tokenizer, before)
        self._stop = StopStrings(stop, shown)
        self._replacers = [Replacer(old, new, shown) for old, new in replacements if old]

    @property
    def stopped(self) -> bool:
        return self._stop.met

    def push(self, token: int) -> str:
        """Return the text that is certain now: often the token's own, possibly empty."""
        text = self._replace(self._stop.push(self._decode(token).replace("\0", "")))
        return text + self._flush() if self.stopped else text

    def end(self) -> str:
        """Return the text that was held back, when no token follows. An incomplete character is dropped."""
        if self.stopped:
            return ""
        return self._replace(self._stop.flush()) + self._flush()

    def _replace(self, text: str) -> str:
        for replacer in self._replacers:
            text = replacer.push(text)
        return text

    def _flush(self) -> str:
        text = ""
        for replacer in self._replacers:
            text = replacer.push(text) + replacer.flush()
        return text


class Held:
    """Text that may be the beginning of one of some strings; its first characters may be shown already."""

    def __init__(self, strings: Sequence[str], shown: str) -> None:
        self._strings = tuple(dict.fromkeys(string for string in strings if string))
        self._shown = held_back(shown, self._strings)
        self._held = shown[len(shown) - self._shown :]

    def flush(self) -> str:
        return self._release(len(self._held))

    def _certain(self) -> str:
        """Release what cannot be the beginning of a string any more."""
        return self._release(len(self._held) - held_back(self._held, self._strings))

    def _release(self, border: int) -> str:
        """Return what is held up to a border, without what is shown already."""
        text, self._held = self._held[self._shown : border], self._held[border:]
        self._shown = max(0, self._shown - border)
        return text


class StopStrings(Held):
    """Passes text on up to the first stop string and holds back only what may be the beginning of one."""

    def __init__(self, strings: Sequence[str], shown: str = "") -> None:
        super().__init__(strings, shown)
        self.met = False

    def push(self, text: str) -> str:
        if self.met:
            return ""
        self._held += text
        new = [(string, max(0, self._shown - len(string) + 1)) for string in self._strings]  # not all of it was shown
        found = [(at + len(string), at) for string, start in new if (at := self._held.find(string, start)) >= 0]
        if not found:
            return self._certain()
        self.met = True
        _, at = min(found)  # the one that is complete first, so that the result does not depend on token borders
        text = self._release(at)
        self._held = ""
        return text


class Replacer(Held):
    """Applies `str.replace` to a text that arrives in pieces."""

    def __init__(self, old: str, new: str, shown: str = "") -> None:
        super().__init__([old], shown)
        self._old, self._new = old, new

    def push(self, text: str) -> str:
        self._held += text
        replaced = ""
        while (at := self._held.find(self._old)) >= 0:
            begun = self._held[at : self._shown]
            rest = self._new[len(begun) :] if self._new.startswith(begun) else self._new
            replaced += self._release(at) + rest
            self._held, self._shown = self._held[len(self._old) :], 0
        return replaced + self._certain()


def held_back(text: str, strings: Sequence[str]) -> int:
    """Return how many characters at the end of `text` begin one of `strings` without completing it."""
    longest = max(map(len, strings), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        tail = text[-length:]
        if any(len(string) > length and string.startswith(tail) for string in strings):
            return length
    return 0


def token_decoder(tokenizer: Any, before: Sequence[int] = ()) -> Callable[[int], str]:
    """Return a function from the next token to the characters that it completes. Special tokens have no text."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return IncrementalDecoder(tokenizer, before) if backend is None else FastDecoder(backend, before)


class FastDecoder:
    """Decodes for tokenizers of the `tokenizers` library, which keeps the state of the text in Rust."""

    def __init__(self, backend: Any, before: Sequence[int] = ()) -> None:
        self._backend = backend
        self._recent = deque(before, maxlen=CONTEXT)
        self._stream = self._begun()

    def __call__(self, token: int) -> str:
        try:
            text = self._step(token)
        except Exception:  # noqa: BLE001 the library raises nothing narrower
            # a byte that is no character can change, for some tokenizers, how the bytes before it are read: text that
            # was shown stays, and decoding begins anew
            self._stream = self._begun()
            text = self._step(token)
        self._recent.append(token)
        return text or ""

    def _step(self, token: int) -> str | None:
        with panics_raised():
            text: str | None = self._stream.step(self._backend, token)
        return text

    def _begun(self) -> DecodeStream:
        with panics_raised():
            return DecodeStream(ids=anchor(self._recent, self._backend.decode), skip_special_tokens=True)


class IncrementalDecoder:
    """Decodes for tokenizers without a `tokenizers` backend, by decoding the last tokens again with each new one.

    The tokens before `_end` were shown; they are the context of the following ones.
    """

    def __init__(self, tokenizer: Any, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._tokens = anchor(before[-CONTEXT:], self._text)
        self._end = len(self._tokens)

    def __call__(self, token: int) -> str:
        self._tokens.append(token)
        shown = self._text(self._tokens[: self._end])
        text = self._text(self._tokens)
        if len(text) <= len(shown) or text.endswith(INCOMPLETE):
            return ""
        self._tokens = self._tokens[self._end :]
        self._end = len(self._tokens)
        return text[len(shown) :]

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def anchor(tokens: Iterable[int], decode: Callable[[list[int]], str]) -> list[int]:
    """Return the last tokens that have a text of their own: they can stand for all tokens before the next one.

    The bytes of a whole character suffice, a part of them does not: the next bytes would be taken for the rest of it.
    If no tokens have such a text, all are returned, since a space that is left out at the beginning is not left out a
    second time; none are returned if their bytes are no whole characters.
    """
    known = list(tokens)
    for end in range(len(known), 0, -1):
        for start in range(end - 1, -1, -1):
            text = decode(known[start:end])
            if text and INCOMPLETE not in text:
                return known[start:end]
    return known if INCOMPLETE not in decode(known) else []
