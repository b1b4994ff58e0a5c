"""Reads the weights of a causal LM from its files, all of them.

transformers fills weights that a file lacks with random numbers and a warning: such a model runs, and talks nonsense.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

STORED = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
"""Bytes of the floating-point numbers of a safetensors file; loading turns them into those that were asked for."""
INDEXED = {"model.safetensors": "model.safetensors.index.json", "pytorch_model.bin": "pytorch_model.bin.index.json"}


def pretrained(folder: Path, **options: Any) -> Any:
    """Return the model. Raises ValueError if weights are missing, and whatever transformers raises."""
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    if missing := sorted(told["missing_keys"]):
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"it has no weights for {missing[0]}{others}")
    return model


def size(folder: Path, dtype: torch.dtype | None) -> int:
    """Return the bytes that a model's weights take at least in these numbers (None: as they are stored).

    0 if the files cannot tell.
    """
    try:
        return sum(_size(folder / name, dtype) for name in _files(folder))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # loading will say what is wrong
        return 0


def _files(folder: Path) -> set[str]:
    """Return the files that transformers would read: a folder may have the same weights in several forms."""
    for name, index in INDEXED.items():
        if (folder / name).is_file():
            return {name}
        if (folder / index).is_file():
            return set(json.loads((folder / index).read_text())["weight_map"].values())
    return set()


def _size(file: Path, dtype: torch.dtype | None) -> int:
    if file.suffix != ".safetensors":
        return file.stat().st_size if dtype is None else 0  # its numbers are known when it is read
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    header.pop("__metadata__", None)
    return sum(_bytes(tensor, dtype) for tensor in header.values())


def _bytes(tensor: dict[str, Any], dtype: torch.dtype | None) -> int:
    begin, end = tensor["data_offsets"]
    if dtype is None or tensor["dtype"] not in STORED:
        return int(end - begin)
    return int(math.prod(tensor["shape"])) * dtype.itemsize
