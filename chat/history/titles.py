"""Makes the title of a conversation from its first question."""

from __future__ import annotations

import unicodedata

from chat.models import TITLE_LENGTH

JOINER = "\u200d"


def title_of(text: str) -> str:
    """Return the first line that is not blank, cut to the length of a title."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if len(line) <= TITLE_LENGTH:
        return line
    end = TITLE_LENGTH - 1
    while end and _belongs(line[end - 1], line[end]):
        end -= 1
    return line[: end or TITLE_LENGTH - 1].rstrip() + "…"


def _belongs(before: str, character: str) -> bool:
    """Tell whether a character is shown as one with the one before it: a mark, an emoji's colour, a joiner's side."""
    joined = unicodedata.category(character) in ("Mn", "Mc", "Me", "Sk") or character == JOINER
    return joined or before == JOINER
