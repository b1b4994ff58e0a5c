"""A program gets the fastest products, as long as they change little of what the model says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from llm.backends.forward import forward
from llm.benchmark.quality import perplexity
from llm.benchmark.target import TEXT
from llm.conf import Settings
from llm.engine import verify
from llm.engine.attention import kernels
from llm.engine.layout import PRODUCTS, Decode, Layout
from llm.engine.linear import calibration, int8, products, quantize
from llm.engine.linear.layer import Linear, Product, plain
from llm.engine.program.program import Program
from llm.engine.program.startup import programmed
from llm.engine.sampler import RowSampling
from llm.engine.sequence import Sequence as Request
from llm.engine.step import Engine
from llm.errors import ConfigurationError
from llm.loading.loader import LoadedModel
from llm.sampling import SamplingParams
from tests.llm.disk import no_room_for_files
from tests.llm.engine.test_step import prompt
from tests.llm.models import FAMILIES, VOCABULARY, tiny

TOKENS = prompt(64)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    found = programmed(verify.packed(tiny()), tmp_path)
    assert isinstance(found, Program)
    return found


def int8_first(shape: Sequence[int]) -> list[products.Way]:
    return sorted(products.ways(shape), key=lambda way: (not way.smooths, way.name.endswith("twice")))


def int8_is_first(linears: Sequence[Linear], *, exact: bool = False) -> dict[torch.Size, list[products.Way]]:
    """As on a machine where int8 is fastest, so that no test depends on how busy this one is."""
    shapes = {linear.weight.shape for linear in linears}
    return {shape: [way for way in int8_first(shape) if way.exact or not exact] for shape in shapes}


@pytest.fixture
def int8_is_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "fastest_first", int8_is_first)
    monkeypatch.setattr(quantize, "decoding", lambda _: (Decode(), 1.0))  # nor on that


@pytest.mark.usefixtures("int8_is_fastest")
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2, window and softcap"])
def test_linear_layers_of_any_model_are_computed_in_int8(family: str, tmp_path: Path) -> None:
    exact = programmed(verify.packed(tiny(family)), tmp_path)
    assert isinstance(exact, Program)
    found, words = quantize.quantized(exact, TOKENS, tmp_path)
    assert "in int8" in words
    logits, before = calibration.logits(found, TOKENS), calibration.logits(exact, TOKENS)
    assert not torch.equal(logits, before)
    assert calibration.divergence(logits, before) < quantize.BOUND


def test_float32_alone_where_nothing_may_be_lost(program: Program, tmp_path: Path) -> None:
    found, words = quantize.quantized(program, None, tmp_path)
    assert (words, found.layout.dtype) == ("float32", torch.float32)
    assert torch.allclose(calibration.logits(found, TOKENS), calibration.logits(program, TOKENS), atol=1e-5)


@pytest.mark.parametrize(
    ("faster", "lost", "expected"),
    [
        (torch.bfloat16, 0.01, torch.bfloat16),
        (torch.float32, 0.01, torch.float32),
        (torch.bfloat16, 0.1, torch.float32),
    ],
    ids=["faster", "slower", "too much is lost"],
)
def test_keys_and_values_have_fewer_bits_where_that_is_faster_and_loses_little(
    faster: torch.dtype,
    lost: float,
    expected: torch.dtype,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways = {
        torch.float32: Decode("fused", "fused", "products"),
        torch.bfloat16: Decode("fused", "products", "fused by head"),
    }

    def decoding(layout: Layout) -> tuple[Decode, float]:
        return ways[layout.dtype], 0.1 if layout.dtype == faster else 0.2

    monkeypatch.setattr(quantize, "decoding", decoding)
    losses = iter([0.01, 0.01, lost])  # of the products, then of a prompt, then of rows in decode
    monkeypatch.setattr(calibration, "divergence", lambda *_: next(losses))
    found, words = quantize.quantized(program, TOKENS, tmp_path)
    again, _ = quantize.quantized(program, TOKENS, tmp_path)
    assert found.layout.dtype == again.layout.dtype == expected
    assert found.layout.decode == again.layout.decode == ways[expected]
    assert f"keys and values: {str(expected).removeprefix('torch.')}" in words or words == "float32"


@pytest.mark.parametrize("way", kernels.WAYS)
@pytest.mark.parametrize("family", FAMILIES)
def test_rows_in_decode_attend_in_any_way(family: str, way: str) -> None:
    model = tiny(family)
    expected = [verify.own_logits(model, tokens) for tokens in verify.conversations(model)]
    packed = verify.packed(model)
    packed.layout = packed.layout._replace(decode=Decode(way, way, way))
    found = verify.packed_logits(packed, verify.conversations(model))
    verify.compare(found, expected, verify.tolerance(model))


def test_few_tokens_short_rows_and_long_ones_attend_in_ways_of_their_own() -> None:
    decode = Decode("fused", "products", "fused by head")
    ways = [decode.way(rows, length) for rows, length in ((1, 512), (8, 64), (16, 64), (3, 256), (3, 257), (1, 4000))]
    assert ways == ["fused", "fused", "products", "products", "fused by head", "fused by head"]


@pytest.mark.parametrize(("few", "short", "expected"), [("fused", PRODUCTS, True), (PRODUCTS, "fused", False)])
def test_rows_attend_in_the_way_of_their_layout(
    few: str, short: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny()
    packed = verify.packed(model)
    packed.layout = packed.layout._replace(decode=Decode(few, short, short))
    fused, original = [], kernels.WAYS["fused"]

    def seen(*args: Any) -> torch.Tensor:
        fused.append(args)
        return original(*args)

    monkeypatch.setattr("llm.engine.attention.packed.WAYS", {**kernels.WAYS, "fused": seen})
    verify.packed_logits(packed, verify.conversations(model))
    assert bool(fused) == expected


@pytest.mark.parametrize(("way", "widened"), [(PRODUCTS, 0), *((way, kernels.FEW_TOKENS) for way in kernels.WAYS)])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_of_fewer_bits_change_little(
    family: str, way: str, widened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "FEW_TOKENS", widened)
    model = tiny(family)
    expected = [verify.own_logits(model, tokens) for tokens in verify.conversations(model)]
    packed = verify.packed(model)
    packed.layout = packed.layout._replace(dtype=torch.bfloat16, decode=Decode(way, way, way))
    found = verify.packed_logits(packed, verify.conversations(model))
    verify.compare(found, expected, verify.COARSE_TOLERANCE)
    assert not any(torch.equal(mine, own) for mine, own in zip(found, expected, strict=True))


@pytest.mark.parametrize("new", [3, 30])
@pytest.mark.parametrize("family", ["llama", "mistral, window", "gemma2, window and softcap"])
def test_a_turn_behind_what_was_kept_with_fewer_bits_changes_little(family: str, new: int) -> None:
    def follow(logits: Tensor, rows: Sequence[RowSampling]) -> list[int | None]:
        seen.append(logits)
        return [5] * len(rows)

    model, seen = tiny(family), list[Tensor]()
    turns = [prompt(40), [*prompt(40), 5, 5, *prompt(new)]]
    expected = verify.own_logits(model, turns[1])[-1:]
    packed = verify.packed(model)
    packed.layout = packed.layout._replace(dtype=torch.bfloat16)
    engine = Engine(packed, kv_tokens=1000, sample=follow)
    for turn in turns:
        request = Request(turn, SamplingParams(), max_new_tokens=2, conversation="one")
        engine.add(request)
        while engine.busy:
            engine.step()
    assert request.cached >= 40
    verify.compare([seen[-2]], [expected], verify.COARSE_TOLERANCE)


def test_what_rows_in_decode_compute_is_what_a_prompt_does(program: Program) -> None:
    positions = [1, 17, 40, 63]
    decoded = calibration.decoded(program, TOKENS, positions)
    assert torch.allclose(decoded, calibration.logits(program, TOKENS)[positions], atol=1e-4)


@pytest.mark.usefixtures("int8_is_fastest")
def test_what_was_chosen_is_kept(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, words = quantize.quantized(program, TOKENS, tmp_path)

    def again(*_: Any, **__: Any) -> list[products.Way]:
        raise AssertionError("measured again")

    monkeypatch.setattr(quantize, "fastest_first", again)
    second, same_words = quantize.quantized(program, TOKENS, tmp_path)
    assert same_words == words
    assert torch.equal(calibration.logits(first, TOKENS), calibration.logits(second, TOKENS))


@pytest.mark.usefixtures("int8_is_fastest")
@pytest.mark.parametrize("damage", [b"nothing", {"decode": '["fused", "unknown"]'}, {"decode": "[1, 2, 3]"}], ids=str)
def test_a_kept_file_that_cannot_be_read_is_made_again(
    damage: bytes | dict[str, str], program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    quantize.quantized(program, TOKENS, tmp_path)
    (kept,) = tmp_path.glob("*.safetensors")
    if isinstance(damage, bytes):
        kept.write_bytes(damage)
    else:
        with safetensors.safe_open(kept, "pt") as file:
            metadata = file.metadata()
        save_file(load_file(kept), kept, metadata | damage)
    _, words = quantize.quantized(program, TOKENS, tmp_path)
    assert "in int8" in words
    assert "it is chosen again" in caplog.text
    assert kept.stat().st_size > 1000


@pytest.mark.usefixtures("int8_is_fastest")
@pytest.mark.parametrize("damage", [lambda found: found[:7], lambda found: found * float("nan")], ids=["short", "NaN"])
def test_kept_factors_that_do_not_fit_are_made_again(
    damage: Callable[[Tensor], Tensor], program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exact = calibration.logits(program, TOKENS)
    name = " ".join(program.linears[0].names)
    quantize.quantized(program, TOKENS, tmp_path)
    (kept,) = tmp_path.glob("*.safetensors")
    with safetensors.safe_open(kept, "pt") as file:
        metadata = file.metadata()
    smooths = next(way for way in products.ways(program.linears[0].weight.shape) if way.smooths)
    ways = json.dumps({**json.loads(metadata["ways"]), name: smooths.name})
    factors = damage(torch.ones(program.linears[0].weight.shape[1])).contiguous()
    save_file({**load_file(kept), name: factors}, kept, metadata | {"ways": ways})
    ready, _ = quantize.quantized(program, TOKENS, tmp_path)
    assert "it is chosen again" in caplog.text
    assert calibration.divergence(calibration.logits(ready, TOKENS), exact) <= quantize.BOUND


@pytest.mark.usefixtures("int8_is_fastest")
def test_a_full_disk_costs_the_next_start_only(
    program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "full"
    with no_room_for_files():
        ready, _ = quantize.quantized(program, TOKENS, folder)
    assert "cannot be kept" in caplog.text
    assert not list(folder.iterdir())
    assert calibration.logits(ready, TOKENS).isfinite().all()


@torch.inference_mode()
def test_other_weights_are_another_choice(program: Program) -> None:
    """Wherever one number differs, in whatever layer, and where two columns have changed places."""
    keys = {quantize._key(program, exact=False)}
    assert quantize._key(program, exact=False) in keys
    for tensor in program.tensors.values():
        where = tuple(size // 2 for size in tensor.shape)
        before = tensor[where].clone()
        tensor[where] += 1
        keys.add(quantize._key(program, exact=False))
        tensor[where] = before
    assert len(keys) == 1 + len(program.tensors)
    (linear, *_) = program.linears
    linear.weight[:, [3, 5]] = linear.weight[:, [5, 3]]
    keys.add(quantize._key(program, exact=False))
    assert len(keys) == 2 + len(program.tensors)


def rough(linear: Linear, _: Tensor | None) -> Product:
    """Fast, and far off."""
    return lambda x: torch.nn.functional.linear(x, linear.weight * 1.5, linear.bias)


def close(linear: Linear, _: Tensor | None) -> Product:
    """Off by what 8 bits of precision leave, whatever this processor can multiply."""
    return plain(linear._replace(weight=linear.weight.bfloat16().float()))


def test_a_way_that_is_too_far_off_is_left_out(program: Program) -> None:
    (linear, *_) = program.linears
    inputs, _ = calibration.recorded(program, TOKENS)
    seen = inputs[linear.names]
    fastest = [products.Way("rough", rough), products.Way("close", close), products.way("float32")]
    assert quantize.choice(linear, seen, fastest, 0.02) == quantize.Choice("close")
    assert quantize.choice(linear, seen, fastest, 1e-6) == quantize.Choice("float32")


def test_an_input_with_outliers_is_smoothed_or_computed_twice() -> None:
    generator = torch.Generator().manual_seed(0)
    linear = Linear(("one",), torch.randn(48, 64, generator=generator), None)
    seen = torch.randn(100, 64, generator=generator)
    coarse = int8_first(linear.weight.shape)[0]
    fastest = [coarse, products.way(f"{coarse.name} twice"), products.way("float32")]
    exact = torch.nn.functional.linear(seen, linear.weight)
    bound = 1.2 * quantize.error(coarse.make(linear, None)(seen), exact)
    even = quantize.choice(linear, seen, fastest, bound)
    columns, anywhere = seen.clone(), seen.clone()
    columns[:, 3] *= 30
    anywhere[torch.arange(100), torch.randint(64, (100,), generator=generator)] *= 10
    smoothed = quantize.choice(linear, columns, fastest, bound)
    finer = quantize.choice(linear, anywhere, fastest, bound)
    assert (even.way, even.factors) == (coarse.name, None)
    assert (smoothed.way, smoothed.factors is None) == (coarse.name, False)
    assert finer.way == f"{coarse.name} twice"


def test_numbers_that_are_none_are_any_error() -> None:
    exact = torch.ones(4, 3)
    assert quantize.error(torch.full((4, 3), float("nan")), exact) == float("inf")
    assert quantize.error(exact * 1.01, exact) == pytest.approx(0.01)


@pytest.mark.usefixtures("int8_is_fastest")
def test_layers_are_computed_finer_while_all_together_change_too_much(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([1.0, 0.5, 0.001])
    bounds: list[float] = []
    plain_choice = quantize.choice

    def choice(linear: Linear, inputs: Tensor, fastest: Sequence[products.Way], bound: float) -> quantize.Choice:
        bounds.append(bound)
        return plain_choice(linear, inputs, fastest, bound)

    monkeypatch.setattr(quantize, "choice", choice)
    monkeypatch.setattr(calibration, "divergence", lambda *_: next(seen))
    quantize.quantized(program, TOKENS, tmp_path)
    assert list(dict.fromkeys(bounds)) == list(quantize.LAYER_BOUNDS)


@pytest.mark.usefixtures("int8_is_fastest")
def test_nothing_is_changed_where_it_would_be_too_much(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calibration, "divergence", lambda *_: 1.0)
    found, words = quantize.quantized(program, TOKENS, tmp_path)
    assert words == "float32"
    assert "No coarser products are used" in caplog.text
    assert torch.allclose(calibration.logits(found, TOKENS), calibration.logits(program, TOKENS), atol=1e-5)


def tame(seed: int) -> list[int]:
    return [(seed + i) % 7 for i in range(40)]


def wild(seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (40,), generator=generator).tolist()


def logits_among(computes: Program, others: Callable[[int], list[int]]) -> Tensor:
    """Those of the answer to `prompt(40)`, whose batch is filled up with 15 others of its length."""
    requests = [Request(prompt(40), SamplingParams(), max_new_tokens=9)]
    requests += [Request(others(seed), SamplingParams(), max_new_tokens=9) for seed in range(15)]
    first, seen = requests[0].sampling, []

    def follow(logits: Tensor, rows: Sequence[RowSampling]) -> list[int | None]:
        seen.extend(row.clone() for row, whose in zip(logits, rows, strict=True) if whose is first)
        return [5 if whose is first else int(row.argmax()) for row, whose in zip(logits, rows, strict=True)]

    engine = Engine(computes, chunk_tokens=2048, sample=follow)
    for request in requests:
        engine.add(request)
    while engine.busy:
        engine.step()
    assert len(seen) == 9
    return torch.stack(seen)


@pytest.mark.usefixtures("int8_is_fastest")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", kernels.WAYS)
def test_logits_are_the_same_bit_by_bit_among_tame_and_wild_others(
    program: Program, way: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    computes, words = quantize.quantized(program, TOKENS, tmp_path)
    assert "in int8" in words
    computes = computes.keeping(dtype, Decode(way, way, way))
    assert torch.equal(logits_among(computes, tame), logits_among(computes, wild))


def settings(tmp_path: Path, **values: Any) -> Settings:
    return Settings(var=str(tmp_path), device="cpu", **values)


@pytest.mark.model
@pytest.mark.timeout(300)
def test_the_bundled_model_loses_little(bundled: LoadedModel, model_cache: str) -> None:
    tokens = bundled.tokenizer(TEXT)["input_ids"]

    def found(**values: Any) -> tuple[float, str]:
        computes, words = forward(Settings(var=model_cache, **values), bundled, len(tokens), lambda *_: None)
        return perplexity(computes, tokens), words

    (exact, plainly), (fast, words) = found(quantization="none"), found()
    assert plainly == "float32"
    assert "in int8" in words or "in bfloat16" in words
    assert 1.02 * exact >= fast > 0.98 * exact


def exact(matrix: int8.Matrix) -> int8.Core:
    """What a core computes, by float32: for machines whose own cores have fewer levels."""
    weight = matrix.whole * matrix.scales
    return lambda rows: torch.nn.functional.linear((rows * int8.LEVELS).round() / int8.LEVELS, weight)


def core_of(levels: int) -> str:
    working = {name: int8.levels(make, (64, 576)) or 0 for name, make in int8.CORES.items() if make is not exact}
    return next((name for name, most in working.items() if most >= levels), "exact")


@pytest.mark.model
@pytest.mark.timeout(300)
@pytest.mark.parametrize("levels", [127, 63])
def test_the_bundled_model_loses_little_with_int8_alone(
    levels: int, bundled: LoadedModel, model_cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where nothing else is fast; a layer that is exact enough in no way is computed in the finest one."""
    tokens, calibrated = (bundled.tokenizer(text)["input_ids"] for text in (TEXT, calibration.TEXT))
    program = programmed(verify.packed(bundled.model), Path(model_cache) / "programs")
    assert isinstance(program, Program)
    monkeypatch.setitem(int8.CORES, "exact", exact)
    name = f"int8 {core_of(levels)} {levels}"
    plain_choice = quantize.choice

    def choice(linear: Linear, inputs: Tensor, fastest: Sequence[products.Way], bound: float) -> quantize.Choice:
        found = plain_choice(linear, inputs, fastest, bound)
        return quantize.Choice(f"{name} twice") if found.way == "float32" else found

    def two_ways(linears: Sequence[Linear], **_: bool) -> dict[torch.Size, list[products.Way]]:
        return {linear.weight.shape: [products.way(name), products.way(f"{name} twice")] for linear in linears}

    monkeypatch.setattr(quantize, "fastest_first", two_ways)
    monkeypatch.setattr(quantize, "choice", choice)
    computes, words = quantize.quantized(program, calibrated, tmp_path)
    layers, *_ = words.split("; ")
    assert {part.split(" in ")[1] for part in layers.split(", ")} == {name, f"{name} twice"}
    assert perplexity(computes, tokens) <= 1.02 * perplexity(program, tokens)


def none_works(*_: Any) -> None:
    raise RuntimeError("not on this machine")


def test_a_machine_without_int8_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedModel("tiny", tiny(), lambda _: {"input_ids": TOKENS})  # type: ignore[arg-type]
    forward(settings(tmp_path), loaded, 100, lambda *_: None)
    assert "8-bit" not in caplog.text
    for name in int8.CORES:
        monkeypatch.setitem(int8.CORES, name, none_works)
    for _ in range(2):  # where it is decided, and where that is kept
        caplog.clear()
        _, words = forward(settings(tmp_path / "other"), loaded, 100, lambda *_: None)
        assert "int8" not in words
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            "No products of 8-bit numbers work on this machine: LLM_QUANTIZATION=auto goes without, slower."
        ]


def test_int8_where_it_cannot_be_is_one_line(tmp_path: Path) -> None:
    model = tiny().to(torch.bfloat16)
    loaded = LoadedModel("tiny", model, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="LLM_QUANTIZATION=int8: .* float32 only"):
        forward(settings(tmp_path, quantization="int8"), loaded, 100, lambda *_: None)
    _, words = forward(settings(tmp_path), loaded, 100, lambda *_: None)
    assert words == "bfloat16"


def test_a_tokenizer_that_makes_nothing_of_the_text_leaves_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = LoadedModel("tiny", tiny(), lambda _: {"input_ids": [1, 2]})  # type: ignore[arg-type]
    _, words = forward(settings(tmp_path), loaded, 100, lambda *_: None)
    assert words == "float32"
    assert "no int8 for this model" in caplog.text
