"""Models on the Hugging Face hub, as directories of the hub's own cache.

Only files that are data are fetched, never code. A token comes from the hub's own variable (HF_TOKEN). Without network
what is in the cache is used.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import errors
from tqdm import tqdm

from llm.errors import ConfigurationError

Fraction = Callable[[float], None]

DATA = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")
WEIGHTS = ("*.safetensors", "*.bin")
TIMEOUT = 10.0


def downloaded(repo: str, revision: str, progress: Fraction) -> Path:
    """The directory of `repo`. Raises ConfigurationError."""
    label, wanted = f"LLM_MODEL={repo}", revision or None
    try:
        info = huggingface_hub.model_info(repo, revision=wanted, timeout=TIMEOUT)
        files = [file.rfilename for file in info.siblings or ()]
        weights = next((kind for kind in WEIGHTS if any(name.endswith(kind[1:]) for name in files)), None)
        if weights is None:
            raise ConfigurationError(f"{label}: this repository has no weights; give one with .safetensors files")
        bar = type("Bar", (_Bar,), {"report": staticmethod(progress)})
        return Path(
            huggingface_hub.snapshot_download(
                repo, revision=info.sha, allow_patterns=[*DATA, weights], tqdm_class=bar
            )
        )
    except errors.GatedRepoError as error:
        raise ConfigurationError(f"{label}: access has to be granted on the hub; then set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise ConfigurationError(f"LLM_MODEL_REVISION={revision}: {repo} has no such revision") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ConfigurationError(
            f"{label}: there is no such directory here and no such model on the hub; check the name"
        ) from error
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        return _cached(repo, wanted, label, error)


def _cached(repo: str, revision: str | None, label: str, error: Exception) -> Path:
    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except errors.LocalEntryNotFoundError:
        raise ConfigurationError(
            f"{label}: the Hugging Face hub cannot be reached and the model is not in its cache; "
            "check the network, or give a directory or a .gguf file"
        ) from error


class _Bar(tqdm):  # type: ignore[type-arg]
    """Shows nothing; tells how far the bytes have come."""

    report: Fraction

    def __init__(self, *positional: Any, **keywords: Any) -> None:
        super().__init__(*positional, **{**keywords, "disable": True})
        self.bytes = keywords.get("unit") == "B"

    def update(self, n: float | None = 1) -> None:
        self.n += n or 0
        if self.bytes and self.total:
            self.report(min(1.0, self.n / self.total))
