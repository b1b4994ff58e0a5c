"""Converts GGUF files to directories that transformers loads in seconds: once, kept, never half-written.

The copy's name carries a fingerprint of the file it was made from, and it gets that name when it is complete. Copies
that nobody uses any more are deleted. The module knows neither settings nor devices.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader, Keys
from transformers import AutoTokenizer, GenerationConfig, GgufConfig, modeling_gguf_pytorch_utils

from llm import diskcache
from llm.errors import Unreadable, one_line
from llm.loading import memory
from llm.loading.weights import pretrained

Fraction = Callable[[float], None]

FORMAT = 2
"""The version of the copies' contents. Raise it when older copies differ from what would be written now."""
KEPT = 3
"""Copies that are kept (of an earlier file, in other numbers, of another model). Each is as large as its weights."""
COPY = re.compile(r"-[0-9a-f]{12}$")
"""The end of the name of a copy; other folders beside the copies are left alone."""
PARTIAL = ".partial"


def converted(
    file: Path, folder: Path, *, name: str, dtype: torch.dtype, sampling: Mapping[str, Any], progress: Fraction
) -> Path:
    """Return the directory with the converted copy of `file`, made now if there is none. Other processes wait for it.

    Raises Unreadable; any other exception is about `folder`, or a lack of memory.
    """
    target = folder / f"{name}-{fingerprint(file, dtype, sampling)}"
    if not target.is_dir():
        _make(file, target, name, dtype, sampling, progress)
    diskcache.used(target)
    diskcache.tidy((path for path in folder.iterdir() if COPY.search(path.name)), KEPT)
    diskcache.tidy(path for path in folder.iterdir() if path.suffix in (PARTIAL, diskcache.GOING))
    return target


def _make(
    file: Path, target: Path, name: str, dtype: torch.dtype, sampling: Mapping[str, Any], progress: Fraction
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{name}.lock")):
        if not target.is_dir():
            partial = target.with_name(target.name + PARTIAL)
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _convert(file, partial, dtype, sampling, progress)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def discard(copy: Path) -> None:
    """Delete a copy that cannot be loaded; the next call of `converted` makes another."""
    shutil.rmtree(copy, ignore_errors=True)


def fingerprint(file: Path, dtype: torch.dtype, sampling: Mapping[str, Any]) -> str:
    stat = file.stat()
    described = f"{FORMAT} {stat.st_size} {stat.st_mtime_ns} {dtype} {sorted(sampling.items())}"
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _convert(file: Path, target: Path, dtype: torch.dtype, sampling: Mapping[str, Any], progress: Fraction) -> None:
    try:
        model, tokenizer = _read(file, dtype, progress)
    except Exception as error:
        if memory.lacks(error):
            raise
        raise Unreadable(one_line(error)) from error
    # what comes from a GGUF counts as quantized, which is never saved; these weights are plain numbers again
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.generation_config = GenerationConfig(**{**model.generation_config.to_diff_dict(), **sampling})
    progress(0.9)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    progress(1.0)


def _read(file: Path, dtype: torch.dtype, progress: Fraction) -> tuple[Any, Any]:
    progress(0.0)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    progress(0.3)  # reading the file's long lists of tokens takes a third of the time, without anything to count
    with _tensors_counted(lambda done: progress(0.4 + 0.5 * done)):
        quantization = GgufConfig(dequantize=True)
        model = pretrained(file.parent, gguf_file=file.name, dtype=dtype, quantization_config=quantization)
    model.generation_config.eos_token_id = _ends(file, model.generation_config.eos_token_id)
    return model, tokenizer


def _ends(file: Path, known: list[int] | int | None) -> list[int] | int | None:
    """Return the tokens that end an answer: those that transformers has read, and others that the file names.

    A GGUF file may name a token that ends a turn, and one that ends a message, apart from the one that ends a text.
    """
    fields = GGUFReader(file).fields
    named = {int(fields[key].contents()) for key in (Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID) if key in fields}
    if not named:
        return known
    return sorted(named.union(known if isinstance(known, list) else [] if known is None else [known]))


@contextmanager
def _tensors_counted(progress: Fraction) -> Iterator[None]:
    """Report progress by the count of a tqdm bar with which transformers counts tensors, and show no bar."""

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
    """Hold a lock of one process at a time; it is gone with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
