"""The bundled model, converted once for all runs, and how hypothesis looks for counterexamples."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm.conf import Settings
from llm.loading.loader import LoadedModel, load


@pytest.fixture(scope="session")
def model_cache() -> str:
    """A `var` that outlives the run: converting the bundled model takes half a minute."""
    return str(Path(__file__).parents[2] / "var" / "test-cache")


@pytest.fixture(scope="session")
def bundled(model_cache: str) -> LoadedModel:
    return load(Settings(var=model_cache, device="cpu"), lambda *_: None)
