"""Free memory is what the kernel and the container say, and what loading took for a while is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from llm.backends.memory import container_memory, free_memory


def test_free_memory_of_this_machine() -> None:
    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "5000", "memory.current": "1200"}, 3800),
        ({"memory/memory.limit_in_bytes": "700", "memory/memory.usage_in_bytes": "100"}, 600),
        ({"memory.max": "max", "memory.current": "1200"}, 1 << 62),
        ({}, 1 << 62),
    ],
)
def test_what_a_container_leaves(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert container_memory(tmp_path) == expected


LOADED = """
import asyncio, psutil, sys
from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.backends.memory import give_back

async def loaded():
    backend = LocalBackend(Settings(var=sys.argv[1], device="cpu"))
    await backend.load(lambda *_: None)
    before = psutil.Process().memory_info().rss
    give_back()
    print(before - psutil.Process().memory_info().rss)
    await backend.close()

asyncio.run(loaded())
"""


@pytest.mark.model
def test_what_loading_took_for_a_while_is_given_back(model_cache: str) -> None:
    """The system has it again: of the bundled model that is a quarter of a gigabyte."""
    command = [sys.executable, "-W", "ignore", "-c", LOADED, model_cache]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    assert int(said.stdout) < 128 << 20, "steps use some of it again"
