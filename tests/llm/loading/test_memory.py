"""Free memory is what the kernel and the container say, and what loading took for a while is given back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.errors import ConfigurationError
from llm.loading import memory, weights
from llm.loading.loader import load
from llm.loading.memory import container_memory, free_memory, make_sure
from tests.llm.models import tiny_chat


def test_free_memory_of_this_machine() -> None:
    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


STAT = "anon 100\nfile 1000\ninactive_file 700\nactive_file 200\nslab_reclaimable 30\nshmem 100"
MANY = 1 << 62


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"memory.max": "5000", "memory.current": "1200"}, 3800),
        ("0::/", {"memory.max": "max", "memory.current": "1200"}, MANY),
        ("0::/", {}, MANY),
        ("", {"memory.max": "5000", "memory.current": "1200"}, 3800),
        # files that were read are dropped for whoever needs the memory
        ("0::/", {"memory.max": "5000", "memory.current": "4900", "memory.stat": STAT}, 1030),
        # each group around this process holds it to its limit
        ("0::/a/b", {"a/memory.max": "900", "a/memory.current": "100", "a/b/memory.max": "max"}, 800),
        (
            "0::/a/b",
            {
                "a/memory.max": "900",
                "a/memory.current": "100",
                "a/b/memory.max": "500",
                "a/b/memory.current": "100",
                "a/memory.stat": "",
            },
            400,
        ),
        # named as outside the container, where it is not
        ("0::/docker/1234", {"memory.max": "5000", "memory.current": "1200"}, 3800),
        # version 1
        ("4:memory:/", {"memory/memory.limit_in_bytes": "700", "memory/memory.usage_in_bytes": "100"}, 600),
        (
            "5:cpu:/x\n4:memory:/a",
            {
                "memory/a/memory.limit_in_bytes": "700",
                "memory/a/memory.usage_in_bytes": "600",
                "memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 50\ntotal_active_file 5",
            },
            155,
        ),
    ],
)
def test_what_a_container_leaves(tmp_path: Path, own: str, files: dict[str, str], expected: int) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text + "\n")
    if own:
        (tmp_path / "own").write_text(own + "\n")
    assert container_memory(tmp_path, tmp_path / "own") == expected


def test_weights_are_counted_in_the_numbers_they_are_loaded_in(folder: Path) -> None:
    counted = sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert weights.size(folder, torch.float32) == 4 * counted
    assert weights.size(folder, torch.bfloat16) == 2 * counted
    assert weights.size(folder, None) == 4 * counted
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")  # the same once more
    assert weights.size(folder, torch.float32) == 4 * counted
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    index = {"weight_map": {"a": "part-1.safetensors", "b": "part-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.size(folder, torch.float32) == 4 * counted
    (folder / "part-1.safetensors").write_bytes(b"\0" * 100)
    assert weights.size(folder, torch.float32) == 0


@pytest.mark.parametrize(("dtype", "takes"), [("float32", "4096.0"), ("bfloat16", "2048.0")])
def test_a_model_that_is_too_large_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any, takes: str
) -> None:
    """Its file says how large it is; nothing of it is read."""
    monkeypatch.setattr(memory, "WAIT_SECONDS", 0.0)
    header = json.dumps({"lm_head.weight": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}})
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    os.truncate(folder / "model.safetensors", 8 + len(header) + (1 << 42))
    with pytest.raises(ConfigurationError) as caught:
        load(Settings(model=str(folder), device="cpu", dtype=dtype), lambda *_: None)
    told = re.fullmatch(
        rf"LLM_MODEL={folder}: its weights take {takes} GiB in {dtype}, and (\d+\.\d) GiB of memory are free on cpu; "
        r"give a smaller model( or LLM_DTYPE=bfloat16)?",
        str(caught.value),
    )
    assert told is not None
    assert float(told[1]) == pytest.approx(free_memory(torch.device("cpu")) / memory.GIB, rel=0.5)
    assert bool(told[2]) == (dtype == "float32")


def test_what_an_earlier_process_is_giving_back_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([10, 10, 30])
    monkeypatch.setattr(memory, "free_memory", lambda device: next(free))
    make_sure("LLM_MODEL=a", 20, "float32", torch.device("cpu"))
    assert list(free) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model, tokenizer = tiny_chat()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def no_memory() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


async def test_a_lack_of_memory_while_loading_is_one_line_wherever_it_comes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("llm.backends.local.forward", "llm.loading.weights.pretrained", "llm.backends.local.paced"):
        with monkeypatch.context() as patch:
            patch.setattr(place, lambda *_, **__: no_memory())
            settings = Settings(
                model=str(folder), device="cpu", var=str(folder), quantization="none", max_new_tokens=64
            )
            backend = LocalBackend(settings)
            with pytest.raises(
                ConfigurationError, match=r"not enough memory.*GiB were free.*1152921504606846976"
            ) as caught:
                await backend.load(lambda *_: None)
            assert "\n" not in str(caught.value)


LOADED = """
import asyncio, psutil, sys
from llm.backends.local import LocalBackend
from llm.conf import Settings
from llm.loading.memory import give_back

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
