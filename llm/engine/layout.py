"""What the engine stores of a token, in which numbers, and in which way they are read in decode.

Values only: how keys and values are kept is `kvcache`'s affair, how queries attend to them that of `attention.kernels`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from llm.engine.blocks import Block

PRODUCTS = "products"
FEW_TOKENS = 512
"""Of all rows together."""
SHORT = 256
"""Tokens: rows are short while none has more."""


class Decode(NamedTuple):
    """In which of `attention.kernels.WAYS` rows in decode attend: few tokens in all, short rows, long ones."""

    few: str = PRODUCTS
    short: str = PRODUCTS
    long: str = PRODUCTS

    def way(self, rows: int, length: int) -> str:
        """For so many rows, the longest of which has that length."""
        if rows * length <= FEW_TOKENS:
            return self.few
        return self.short if length <= SHORT else self.long


class LayerShape(NamedTuple):
    """What one layer stores of a token."""

    kv_heads: int
    key_width: int
    value_width: int


class Layout(NamedTuple):
    """Shapes of all layers, where and how their numbers are kept, and how they are read in decode."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device
    decode: Decode = Decode()

    @property
    def token_bytes(self) -> int:
        numbers = sum(heads * (key + value) for heads, key, value in self.layers)
        return numbers * self.dtype.itemsize

    def block(self, tokens: int, *rows: int) -> Block:
        """Room for the keys `[*rows, kv_heads, tokens, key_width]` of all layers, then for their values."""
        keys = [(*rows, heads, tokens, width) for heads, width, _ in self.layers]
        values = [(*rows, heads, tokens, width) for heads, _, width in self.layers]
        return Block([*keys, *values], self.dtype, self.device)
