"""Multiplies 8-bit numbers: torch's kernels for that on the CPU, behind one interface.

A `Core` multiplies rows whose numbers lie in -1 to 1 by a matrix of whole numbers. The rows are rounded to 1/127 with
a scale that is FIXED: kernels that look for one over the whole tensor (`quantized.linear_dynamic`) let the rows of a
batch change each other. Torch will take away the quantized tensors of the first core
(https://github.com/pytorch/pytorch/issues/184982); it is used in this file only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

LEVELS = 127
"""Levels of the rows' numbers, on either side of 0."""
USUAL = (64, 256)

Core = Callable[[Tensor], Tensor]
"""`[..., in]`, of -1 to 1 -> `[..., out]`, float32."""


class Matrix(NamedTuple):
    """`whole * scales` is about a weight `[out, in]`; `scales` is `[out, 1]`, `whole` has whole numbers in float32."""

    whole: Tensor
    scales: Tensor


def rounded(weight: Tensor, levels: int) -> Matrix:
    """Round each row of the weight in steps of its own, so that its largest number is `levels`."""
    scales = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / levels
    return Matrix((weight / scales).round_(), scales)


def fbgemm(matrix: Matrix) -> Core:
    """Return a core that quantizes the rows, multiplies and gives back float32 in one call."""
    scales = matrix.scales[:, 0].double()
    zeros = torch.zeros(len(scales), dtype=torch.long)
    with _engine("fbgemm"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that quantized tensors will go: said above
        whole = torch.quantize_per_channel(matrix.whole * matrix.scales, scales, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(whole, None)
    multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32

    def core(rows: Tensor) -> Tensor:
        out: Tensor = multiply(rows, 1 / LEVELS, LEVELS, packed)
        return out

    return core


def onednn(matrix: Matrix) -> Core:
    """Return a core over plain tensors of whole numbers; it rounds the rows itself."""
    packed = torch.ops.onednn.qlinear_prepack(matrix.whole.to(torch.int8), None)
    scales = matrix.scales[:, 0].float()
    zeros = torch.zeros(len(scales), dtype=torch.long)
    multiply = torch.ops.onednn.qlinear_pointwise

    def core(rows: Tensor) -> Tensor:
        whole = (rows * LEVELS).round_().add_(LEVELS).to(torch.uint8)
        out: Tensor = multiply(
            whole, 1 / LEVELS, LEVELS, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return out

    return core


CORES: dict[str, Callable[[Matrix], Core]] = {"fbgemm": fbgemm, "onednn": onednn}


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Set torch's quantized engine within the context, because packing takes the current engine's kernels."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def levels(make: Callable[[Matrix], Core], shape: tuple[int, int]) -> int | None:
    """Return how many levels weights of this shape may have with such a core: 127, 63, or None if it does not work.

    Without the instructions made for it, two products of 8 bits are summed in 16, which overflow with more than 63 (255
    * 63 * 2 < 2 ** 15). It is found by trying: the largest numbers there are, and whether a row is the same, bit by
    bit, alone and in any batch.
    """
    for highest in (LEVELS, LEVELS // 2):
        try:
            if _right(make, shape, highest):
                return highest
        except (RuntimeError, AttributeError):
            return None
    return None


def works() -> bool:
    """Return whether any core works here, for layers of a usual shape."""
    return any(levels(make, USUAL) is not None for make in CORES.values())


def _right(make: Callable[[Matrix], Core], shape: tuple[int, int], highest: int) -> bool:
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(-highest, highest + 1, shape, generator=generator).float()
    whole[: len(whole) // 2] = highest
    core = make(Matrix(whole, torch.full((len(whole), 1), 1 / highest)))
    rows = torch.randint(-LEVELS, LEVELS + 1, (65, shape[1]), generator=generator) / LEVELS
    rows[::2] = 1.0
    found = core(rows)
    exact = (rows.double() @ whole.double().T / highest).float()
    if not torch.allclose(found, exact, rtol=1e-4, atol=1e-3):
        return False
    return all(torch.equal(core(rows[size : 2 * size]), found[size : 2 * size]) for size in (1, 2, 3, 8, 16, 17, 32))
