"""Computes on lists of token ids; it knows no tokenizer."""

from __future__ import annotations

from collections.abc import Sequence


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the number of tokens with which both sequences begin."""
    differing = (length for length, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differing, min(len(one), len(other)))
