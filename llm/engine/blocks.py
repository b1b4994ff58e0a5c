"""Allocates memory for keys and values that is taken when it is first written and given back at once, row by row.

On the CPU every block is a mapping of its own. The kernel gives a page its memory when it is first written, so that
room for many rows costs nothing until they are used and need not be moved to grow; and freed memory goes back to the
system, not to an allocator whose gaps would be counted nowhere. Elsewhere a block is what torch allocates. The module
knows neither tokens nor layers.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

PAGE = mmap.PAGESIZE


class Block:
    """`tensors` of the given shapes, all zero, in memory of their own. Raises MemoryError."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, device: torch.device) -> None:
        self._map: mmap.mmap | None = None
        self._offsets: list[int] = []
        if device.type == "cpu":
            self.tensors = self._mapped(shapes, dtype)
        else:
            self.tensors = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]

    @property
    def grows(self) -> bool:
        """Whether the block takes memory only as it is written."""
        return self._map is not None

    def give_back(self, row: int) -> None:
        """Give back the memory of this row of each tensor, as far as it is whole pages. Finite numbers stay finite."""
        if self._map is None:
            return
        for tensor, offset in zip(self.tensors, self._offsets, strict=True):
            size = tensor.nbytes // len(tensor)
            start = -(-(offset + row * size) // PAGE) * PAGE
            length = (offset + (row + 1) * size) // PAGE * PAGE - start
            if length > 0:
                self._map.madvise(mmap.MADV_DONTNEED, start, length)

    def _mapped(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
        end = 0
        for shape in shapes:
            self._offsets.append(end)
            end += -(-math.prod(shape) * dtype.itemsize // PAGE) * PAGE
        try:
            self._map = mmap.mmap(-1, max(end, PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MemoryError(f"no {end} bytes for keys and values") from error
        if hasattr(mmap, "MADV_NOHUGEPAGE"):  # a row must not bring the memory of its neighbours with it
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        return [
            torch.frombuffer(self._map, dtype=dtype, count=math.prod(shape), offset=offset).view(shape)
            for shape, offset in zip(shapes, self._offsets, strict=True)
        ]
