"""Fetches models of the Hugging Face hub, as directories of the hub's own cache.

Only files that are data are fetched, never code. A token comes from the hub's own variable (HF_TOKEN). Without network
the cached files are used.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import errors, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from llm.errors import ConfigurationError, one_line

Fraction = Callable[[float], None]

DATA = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]
WEIGHTS = ["*.safetensors", "*.bin"]
"""Patterns of weight files in the order of preference; a repository may have both."""
NO_SPACE = ("No space left on device", "Disk quota exceeded")
"""How the system calls a full disk. The part of a download that is not written in Python hands on only these words."""
UNREACHABLE = (httpx.HTTPError, errors.LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror)


def downloaded(repo: str, revision: str, progress: Fraction) -> Path:
    """Return the directory of `repo`. Raises ConfigurationError."""
    label = f"LLM_MODEL={repo}"
    bar = type("Bar", (_Bar,), {"report": staticmethod(progress)})
    try:
        for weights in WEIGHTS:
            folder = snapshot_download(
                repo, revision=revision or None, allow_patterns=[*DATA, weights], ignore_patterns="*/*", tqdm_class=bar
            )
            if any(Path(folder).glob(weights)):
                break
        return Path(folder)
    except errors.GatedRepoError as error:
        raise ConfigurationError(f"{label}: access has to be granted on the hub; then set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigurationError(f"LLM_MODEL_REVISION={revision}: {repo} has no such revision; check it") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ConfigurationError(
            f"{label}: there is no such directory here and no such model on the hub; check the name"
        ) from error
    except Exception as error:
        raise ConfigurationError(f"{label}: {_what_failed(error)}") from error


def _what_failed(error: Exception) -> str:
    """Return what is wrong in words, with the remedy. For one fault different parts of a download raise differently."""
    if any(text in str(error) for text in NO_SPACE):
        return f"there is no space left for it in {HF_HUB_CACHE}; free some, or set HF_HOME to a folder elsewhere"
    if isinstance(error, UNREACHABLE):
        return (
            "not in the hub's cache here, and the hub cannot be reached; "
            "check the network, or give a directory or a .gguf file"
        )
    if isinstance(error, OSError):
        return f"cannot be kept in {HF_HUB_CACHE} ({one_line(error)}); see to that folder, or set HF_HOME"
    return f"cannot be fetched from the hub ({one_line(error)}); try again, or give a directory or a .gguf file"


class _Bar(tqdm):
    """A bar that shows nothing and reports the share of the bytes that have come."""

    report: Fraction

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        super().__init__(*positional, **{**keywords, "disable": True})  # type: ignore[no-untyped-call]
        self._written = str(keywords.get("desc", "")).startswith("Reconstructing")

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0
        if self._written and self.total:
            self.report(min(1.0, self.n / self.total))
