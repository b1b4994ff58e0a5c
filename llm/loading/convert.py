"""GGUF files as directories that transformers loads in seconds: converted once, kept, never half-written.

The copy's name carries a fingerprint of the file it was made from, and it gets that name when it is complete. Knows
neither settings nor devices.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig, modeling_gguf_pytorch_utils

Fraction = Callable[[float], None]

FORMAT = 1
"""Raise it when the copies of before are no longer what would be written now."""


def converted(
    file: Path, folder: Path, *, name: str, dtype: torch.dtype, sampling: Mapping[str, Any], progress: Fraction
) -> Path:
    """The directory with the converted copy of `file`, made now if there is none. Other processes wait for it."""
    target = folder / f"{name}-{fingerprint(file, dtype, sampling)}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder / f"{name}.lock"):
        if not target.is_dir():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _convert(file, partial, dtype, sampling, progress)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return target


def fingerprint(file: Path, dtype: torch.dtype, sampling: Mapping[str, Any]) -> str:
    stat = file.stat()
    described = f"{FORMAT} {stat.st_size} {stat.st_mtime_ns} {dtype} {sorted(sampling.items())}"
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _convert(file: Path, target: Path, dtype: torch.dtype, sampling: Mapping[str, Any], progress: Fraction) -> None:
    progress(0.0)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    progress(0.3)  # reading the file's long lists of tokens takes a third of the time, without anything to count
    with _tensors_counted(lambda done: progress(0.4 + 0.5 * done)):
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
    # what comes from a GGUF counts as quantized, which is never saved; these weights are plain numbers again
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.generation_config = GenerationConfig(**{**model.generation_config.to_diff_dict(), **sampling})
    progress(0.9)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    progress(1.0)


@contextmanager
def _tensors_counted(progress: Fraction) -> Iterator[None]:
    """transformers counts tensors with a tqdm bar of its own: take its count, show no bar."""

    def counted(tensors: Any, **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors, 1):
            yield tensor
            progress(done / len(tensors))

    original = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = counted
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = original


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """For one process at a time; the lock is gone with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
