"""Keeps finished answers, so that the next turn of a conversation computes only what is new.

The keys and values of a conversation's tokens wait here for its next prompt; the least recently used are forgotten
first. One conversation never gets another's, or the time it saves would tell one visitor what another asked; only the
text with which the operator opens every prompt is common to all. The module knows token ids, no text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from llm.engine.kvcache import Kept
from llm.tokens import common_length

OPERATOR = ""
"""The key of the operator's opening; a conversation has a name."""


class Prefix(NamedTuple):
    tokens: Sequence[int]
    kept: Kept


class Prefixes:
    """The kept tokens, by conversation. The caller says each time how much may be kept."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[str, Prefix] = OrderedDict()
        self.tokens = 0
        """Tokens that are kept in all."""

    def take(self, conversation: str, prompt: Sequence[int]) -> tuple[Kept | None, int]:
        """Return what is kept of a prompt's beginning, and how many tokens that is; the conversation's own leaves.

        The last token of a prompt is never among them: it has to be computed for what follows it.
        """
        own = self._pop(conversation) if conversation else None
        operator = self._prefixes.get(OPERATOR)
        best: tuple[Kept | None, int] = (None, 0)
        for prefix in (operator, own):
            length = common_length(prefix.tokens, prompt[:-1]) if prefix is not None else 0
            if prefix is not None and length > best[1]:
                best = (prefix.kept, length)
                if prefix is operator:
                    self._prefixes.move_to_end(OPERATOR)
        return best

    def keep(self, conversation: str, tokens: Sequence[int], kept: Kept) -> None:
        """Keep these tokens in the place of what was kept of that conversation."""
        self._pop(conversation)
        self._prefixes[conversation] = Prefix(tokens, kept)
        self.tokens += kept.length

    def has(self, conversation: str, tokens: Sequence[int]) -> bool:
        """Return whether all these tokens are kept, perhaps with more that follows."""
        prefix = self._prefixes.get(conversation)
        return prefix is not None and prefix.tokens[: len(tokens)] == tokens

    def fit(self, tokens: int) -> None:
        """Forget the least recently used until no more than `tokens` are kept."""
        while self._prefixes and self.tokens > tokens:
            self._pop(next(iter(self._prefixes)))

    def _pop(self, conversation: str) -> Prefix | None:
        prefix = self._prefixes.pop(conversation, None)
        if prefix is not None:
            self.tokens -= prefix.kept.length
        return prefix
