"""Describes what the engine stores of a token, in which numbers, and in which way it is read in decode.

These are values only: `kvcache` keeps keys and values, `attention.kernels` computes how queries attend to them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from llm.engine.blocks import Block

PRODUCTS = "products"
FEW_TOKENS = 512
"""The most tokens, of all rows together, that count as few."""
SHORT = 256
"""The most tokens of the longest row with which rows count as short."""


class Decode(NamedTuple):
    """The way of `attention.kernels.WAYS` in which rows in decode attend: few tokens in all, short rows, long ones."""

    few: str = PRODUCTS
    short: str = PRODUCTS
    long: str = PRODUCTS

    def way(self, rows: int, length: int) -> str:
        """Return the way for that many rows, the longest of which has that length."""
        if rows * length <= FEW_TOKENS:
            return self.few
        return self.short if length <= SHORT else self.long


class LayerShape(NamedTuple):
    """What one layer stores of a token."""

    kv_heads: int
    key_width: int
    value_width: int


class Layout(NamedTuple):
    """Shapes of all layers, where and in which numbers they are kept, and how they are read in decode."""

    layers: tuple[LayerShape, ...]
    dtype: torch.dtype
    device: torch.device
    decode: Decode = Decode()

    @property
    def token_bytes(self) -> int:
        numbers = sum(heads * (key + value) for heads, key, value in self.layers)
        return numbers * self.dtype.itemsize

    def block(self, tokens: int, *rows: int) -> Block:
        """Return room for the keys `[*rows, kv_heads, tokens, key_width]` of all layers, then for their values."""
        keys = [(*rows, heads, tokens, width) for heads, width, _ in self.layers]
        values = [(*rows, heads, tokens, width) for heads, _, width in self.layers]
        return Block([*keys, *values], self.dtype, self.device)
