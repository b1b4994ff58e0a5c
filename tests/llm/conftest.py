"""The bundled model, converted once for all runs, and how hypothesis looks for counterexamples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llm.conf import Settings
from llm.loading.loader import LoadedModel, load


@pytest.fixture(scope="session")
def model_cache() -> str:
    """A `var` that outlives the run: converting the bundled model takes half a minute."""
    return str(Path(__file__).parents[2] / "var" / "test-cache")


@pytest.fixture(scope="session")
def bundled(model_cache: str) -> LoadedModel:
    return load(Settings(var=model_cache, device="cpu"), lambda *_: None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Products so small take ten times as long with two threads, on a busy machine more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
