"""Reads the ranges of a conversation's settings off the types that validate them, for the page to offer.

Knows which of them the operator limits further, and what a browser's number fields can hold.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import inspect

from chat.history.values import ConversationSettings
from llm.conf import get_settings

EXACT = 2**53 - 1
"""Larger whole numbers are not exact in a script."""

FINEST = 0.01
"""How far from a bound that is excluded the page begins."""


class Range(NamedTuple):
    """Attributes of a number field, as text: templates would write numbers in the visitor's language."""

    least: str
    most: str
    step: str


class Texts(NamedTuple):
    """At most so many texts, each of at most so many characters."""

    most: int
    longest: int


def ranges() -> dict[str, Range | Texts]:
    """Return the settings that have a range, by name."""
    limits = {"seed": EXACT, "max_new_tokens": get_settings().max_new_tokens}
    found: dict[str, Range | Texts] = {}
    for field in inspect.type_info(ConversationSettings).fields:  # type: ignore[attr-defined]  # it is a struct's
        kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
        for each in (_range(kind, limits.get(field.name)) for kind in kinds):
            if each is not None:
                found[field.name] = each
    return found


def _range(kind: inspect.Type, limit: int | None) -> Range | Texts | None:
    match kind:
        case inspect.IntType() | inspect.FloatType():
            least = kind.ge if kind.gt is None else kind.gt + FINEST
            most = min(bound for bound in (kind.le, limit) if bound is not None)
            return Range(str(least), str(most), "1" if isinstance(kind, inspect.IntType) else "any")
        case inspect.StrType(max_length=int(longest)):
            return Texts(1, longest)
        case inspect.VarTupleType(item_type=inspect.StrType(max_length=int(longest)), max_length=int(most)):
            return Texts(most, longest)
    return None
