"""A step program gives the model's own logits, is kept on disk, and is never used where it is wrong."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from llm.engine import verify
from llm.engine.linear.layer import Linear, Product, plain
from llm.engine.model_runner import PackedModel
from llm.engine.program import program, startup
from llm.engine.program.program import Program
from llm.engine.step import Engine
from tests.llm.engine.test_step import prompt, run, sequence
from tests.llm.models import FAMILIES, generated, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_generate(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a batch of different lengths, in chunks, and at the end alone; made now, and from the kept text."""
    model = tiny(family)
    prompts, counts = [prompt(length) for length in (5, 26, 150)], [30, 12, 10]
    expected = [generated(model, p, n, eos_token_id=None) for p, n in zip(prompts, counts, strict=True)]
    eager = verify.packed(model)
    for _ in range(2):
        forward = startup.programmed(eager, tmp_path)
        assert isinstance(forward, Program)
        batch = [sequence(tokens, count) for tokens, count in zip(prompts, counts, strict=True)]
        run(Engine(forward, chunk_tokens=12), {0: batch[:1], 3: batch[1:]})
        assert [one.generated for one in batch] == expected
        monkeypatch.setattr(startup, "written", _fails)


def test_a_step_is_a_few_calls() -> None:
    """Of SmolLM2's layers each: so many are what a step costs with few rows."""
    text = program.written(tiny())
    calls = [line for line in text.splitlines() if line.startswith("        v") and "[" not in line.split("=")[1][:6]]
    assert len(calls) <= 3 * 22 + 20


@pytest.fixture
def eager() -> PackedModel:
    return verify.packed(tiny())


def test_the_kept_text_is_used(eager: PackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    startup.programmed(eager, tmp_path)
    monkeypatch.setattr(startup, "written", _fails)
    assert isinstance(startup.programmed(eager, tmp_path), Program)


def test_another_model_or_another_version_is_another_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    names = {startup.file(tmp_path, model), startup.file(tmp_path, tiny("qwen2"))}
    names.add(startup.file(tmp_path, tiny("llama, rope yarn")))
    for module in (torch, startup.transformers):
        with monkeypatch.context() as patch:
            patch.setattr(module, "__version__", "9.9")
            names.add(startup.file(tmp_path, model))
    with monkeypatch.context() as patch:
        patch.setattr(startup, "MAKERS", startup.MAKERS[1:])
        names.add(startup.file(tmp_path, model))
    assert len(names) == 6
    assert startup.file(tmp_path, tiny()) in names


def test_all_files_of_a_maker_decide_what_a_text_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, part = ModuleType("maker"), tmp_path / "part.py"
    maker.__file__ = str(tmp_path / "__init__.py")
    monkeypatch.setattr(startup, "MAKERS", (maker,))
    Path(maker.__file__).touch()
    names = set()
    for text in ("1", "2"):
        part.write_text(text)
        names.add(startup.file(tmp_path, tiny()))
    assert len(names) == 2


@pytest.mark.parametrize(
    "damage",
    [lambda text: text.replace("(0.25,", "(0.3,"), lambda text: text[: len(text) // 2]],
    ids=["other numbers", "half of it"],
)
def test_a_text_that_is_wrong_is_made_again(
    damage: Any, eager: PackedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    startup.programmed(eager, tmp_path)
    (file,) = tmp_path.iterdir()
    right = file.read_text()
    file.write_text(damage(right))
    assert isinstance(startup.programmed(eager, tmp_path), Program)
    assert "is of no use" in caplog.text
    assert file.read_text() == right


def test_a_text_that_is_none_is_made_again(eager: PackedModel, tmp_path: Path) -> None:
    """What a power cut leaves of a file is not even letters."""
    startup.programmed(eager, tmp_path)
    (file,) = tmp_path.iterdir()
    right = file.read_text()
    file.write_bytes(b"\xff\xfe\x80" * 100)
    assert isinstance(startup.programmed(eager, tmp_path), Program)
    assert file.read_text() == right


def test_without_a_program_the_modules_serve(
    eager: PackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(startup, "written", _fails)
    with caplog.at_level(logging.WARNING):
        assert startup.programmed(eager, tmp_path) is eager
    assert [record.message for record in caplog.records] == [
        "llama has no step program (RuntimeError: it cannot be captured). Its modules are used, which is slower."
    ]


def test_a_program_with_other_logits_is_not_used(
    eager: PackedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = startup.written(eager.model)
    monkeypatch.setattr(startup, "written", lambda _: right.replace("(0.25,", "(0.3,"))
    assert startup.programmed(eager, tmp_path) is eager
    assert "logits differ" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_costs_the_next_start_only(
    eager: PackedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    assert isinstance(startup.programmed(eager, tmp_path / "file" / "folder"), Program)
    assert "cannot be kept" in caplog.text


def test_products_are_chosen_for_each_linear_and_see_its_inputs(eager: PackedModel, tmp_path: Path) -> None:
    seen: dict[tuple[str, ...], list[torch.Size]] = {}

    def recorded(linear: Linear) -> Product:
        product, shapes = plain(linear), seen.setdefault(linear.names, [])

        def record(x: Tensor) -> Tensor:
            shapes.append(x.shape)
            return product(x)

        return record

    made = startup.programmed(eager, tmp_path)
    assert isinstance(made, Program)
    again = made.rebound(recorded)
    first, second = sequence(prompt(9), 4), sequence(prompt(9), 4)
    run(Engine(made), {0: [first]})
    run(Engine(again), {0: [second]})
    assert first.generated == second.generated
    layer = "model.layers.0"
    names = {
        tuple(f"{layer}.self_attn.{each}_proj" for each in "qkv"),
        (f"{layer}.self_attn.o_proj",),
        (f"{layer}.mlp.gate_proj", f"{layer}.mlp.up_proj"),
        (f"{layer}.mlp.down_proj",),
    }
    assert {each for each in seen if each[0].startswith(layer)} == names
    assert len(seen) == 3 * 4 + 1
    assert seen[("lm_head",)] == [(1, 1, 64)] * 4
    assert seen[(f"{layer}.mlp.down_proj",)] == [(1, 9, 96)] + [(1, 1, 96)] * 3


def test_joined_weights_are_in_memory_once(eager: PackedModel) -> None:
    linears: list[Linear] = []
    text = program.Text(program.written(eager.model), eager.model)
    for _ in range(2):
        text.step(lambda linear: linears.append(linear) or plain(linear))  # type: ignore[func-returns-value]
    for linear in linears:
        mine = [eager.model.get_submodule(name).weight.untyped_storage().data_ptr() for name in linear.names]
        assert mine == [linear.weight.untyped_storage().data_ptr()] * len(mine)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    eager = verify.packed(tiny("qwen3").to(dtype))
    assert isinstance(startup.programmed(eager, tmp_path), Program)


def _fails(_: Any) -> str:
    raise RuntimeError("it cannot be captured")
