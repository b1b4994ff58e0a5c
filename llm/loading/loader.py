"""Loads the model of LLM_MODEL, in all forms of that setting, on the device and in the numbers that were asked for.

Whatever the operator has to change is a ConfigurationError of one line that names the setting and the remedy. Code of
a model repository is never run. The loader knows nothing of how tokens are computed.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub.utils
import torch
import transformers
from transformers import AutoConfig, AutoTokenizer

from llm.conf import Settings
from llm.errors import ConfigurationError, InvalidRequest, Unreadable, one_line
from llm.loading import bundled, convert, hub, memory, weights
from llm.sampling import DEFAULTS, SamplingParams
from llm.status import Progress

logger = logging.getLogger(__name__)

PYTHON = "python:"
GGUF = ".gguf"
WEIGHT_FILES = ("*.safetensors", "*.bin")
RECOMMENDED = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
"""The sampling parameters that are taken from a generation_config."""


class LoadedModel(NamedTuple):
    """A causal LM with its tokenizer, and what its files say about its use."""

    name: str
    model: Any
    tokenizer: Any

    @property
    def sampling(self) -> SamplingParams:
        """The parameters that its generation_config recommends, but for those out of range, over `DEFAULTS`."""
        values = {name: getattr(self.model.generation_config, name) for name in RECOMMENDED}
        return SamplingParams(**{name: value for name, value in values.items() if not out_of_range(name, value)}).over(
            DEFAULTS
        )

    @property
    def vocabulary(self) -> int:
        """The number of its tokens; some of them may have no text."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end an answer."""
        found: set[int] = set()
        for source in (self.model.generation_config, self.model.config, self.tokenizer):
            ids = getattr(source, "eos_token_id", None)
            found |= set(ids) if isinstance(ids, list) else set() if ids is None else {ids}
        return frozenset(found)


def load(settings: Settings, progress: Progress) -> LoadedModel:
    """Return the model of LLM_MODEL, on its device, ready for inference. Blocks; raises ConfigurationError."""
    device = device_of(settings)
    dtype = dtype_of(settings, device)
    if isinstance(settings.threads, int):
        torch.set_num_threads(settings.threads)
    with quiet():
        found = _found(settings, device, dtype, progress)
    if not found.model.can_generate():
        raise ConfigurationError(f"{label(settings)}: is not a causal language model; give one that generates text")
    if found.tokenizer.chat_template is None and not settings.prompt:
        raise ConfigurationError(f"{label(settings)}: has no chat template; set LLM_PROMPT to a ChatPrompt class")
    for name in RECOMMENDED:
        if wrong := out_of_range(name, getattr(found.model.generation_config, name)):
            logger.warning("%s: its generation_config is not followed in %s: %s", label(settings), name, wrong)
    model = found.model.to(device) if dtype is None else found.model.to(device, dtype)
    return found._replace(model=model.eval().requires_grad_(False))


def out_of_range(name: str, value: Any) -> str:
    """Return why a sampling parameter cannot have this value; an empty string if it can."""
    try:
        SamplingParams(**{name: value}).validated()
    except (InvalidRequest, TypeError) as error:
        return str(error)
    return ""


def label(settings: Settings) -> str:
    return f"LLM_MODEL={settings.model}"


def _found(settings: Settings, device: torch.device, dtype: torch.dtype | None, progress: Progress) -> LoadedModel:
    if settings.model.startswith(PYTHON):
        progress("building the model", None)
        return _from_function(settings)
    given, path = settings.model, Path(settings.model).expanduser()
    if given == "bundled":
        return _from_gguf(settings, bundled.gguf_file(), bundled.NAME, bundled.SAMPLING, device, dtype, progress)
    if given.endswith(GGUF):
        if not path.is_file():
            raise ConfigurationError(f"{label(settings)}: there is no such file; check the path")
        return _from_gguf(settings, path, path.stem, {}, device, dtype, progress)
    name, folder = _folder(settings, progress)
    progress("loading the model", None)
    return LoadedModel(name, *_from_folder(folder, dtype, device, label(settings)))


def _folder(settings: Settings, progress: Progress) -> tuple[str, Path]:
    """Return the model's name for people, and a directory that transformers can read."""
    given, path = settings.model, Path(settings.model).expanduser()
    if path.is_dir():
        return path.resolve().name, path
    if given.startswith(("/", "./", "../", "~")) or given.count("/") > 1:
        raise ConfigurationError(f"{label(settings)}: there is no such directory; check the path")
    return given, hub.downloaded(given, settings.model_revision, lambda done: progress("downloading the model", done))


def _from_gguf(
    settings: Settings,
    file: Path,
    name: str,
    sampling: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype | None,
    progress: Progress,
) -> LoadedModel:
    """Load a GGUF file by its converted copy; a copy that was damaged since is made again."""

    def from_copy() -> LoadedModel:
        progress("loading the model", None)
        return LoadedModel(name, *_from_folder(copy, dtype, device, label(settings)))

    copy = _converted(settings, file, name, sampling, dtype or torch.bfloat16, progress)
    try:
        return from_copy()
    except ConfigurationError as error:
        logger.warning("The converted copy is of no use, it is made again. %s", error)
    convert.discard(copy)
    copy = _converted(settings, file, name, sampling, dtype or torch.bfloat16, progress)
    return from_copy()


def _converted(
    settings: Settings, file: Path, name: str, sampling: dict[str, Any], dtype: torch.dtype, progress: Progress
) -> Path:
    def report(done: float) -> None:
        progress("converting the model (the first time only)", done)

    folder = settings.var_path / "models"
    try:
        return convert.converted(file, folder, name=name, dtype=dtype, sampling=sampling, progress=report)
    except Unreadable as error:
        raise ConfigurationError(
            f"{label(settings)}: this GGUF file cannot be read ({error}); give another model"
        ) from error
    except Exception as error:  # a full disk is another error in each library
        if memory.lacks(error):
            raise
        raise ConfigurationError(
            f"CHATSTREAM_VAR={settings.var}: cannot keep the converted model ({one_line(error)})"
        ) from error


def _from_folder(folder: Path, dtype: torch.dtype | None, device: torch.device, label: str) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{label}: no config.json there; give the directory of a transformers model")
    if not any(any(folder.glob(pattern)) for pattern in WEIGHT_FILES):
        raise ConfigurationError(f"{label}: no weights there; give a directory with .safetensors files")
    try:
        config = AutoConfig.from_pretrained(folder)
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ConfigurationError(
                f"{label}: {config.model_type} is not a causal language model; give one that generates text"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        needed, numbers = weights.size(folder, dtype), str(dtype or config.dtype).removeprefix("torch.")
        for place in {device, torch.device("cpu")}:  # they are read into the memory of the machine first
            memory.make_sure(label, needed, numbers, place)
        return weights.pretrained(folder, dtype=dtype or "auto", disable_mmap=True), tokenizer
    except ConfigurationError:
        raise
    except Exception as error:
        if memory.lacks(error):
            raise
        raise ConfigurationError(f"{label}: cannot be loaded ({one_line(error)}); check the files") from error


def _from_function(settings: Settings) -> LoadedModel:
    """Call the function of a person who builds the model in code; it returns model and tokenizer."""
    path = settings.model.removeprefix(PYTHON)
    module, _, name = path.rpartition(".")
    try:
        model, tokenizer = getattr(importlib.import_module(module), name)()
    except Exception as error:
        if memory.lacks(error):
            raise
        raise ConfigurationError(
            f"{label(settings)}: {one_line(error)}; give the dotted path of a function that returns (model, tokenizer)"
        ) from error
    return LoadedModel(name, model, tokenizer)


def device_of(settings: Settings) -> torch.device:
    """Return the device of LLM_DEVICE. Raises ConfigurationError if it does not exist."""
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(settings.device)
    if device.type != "cuda":
        return device
    if not torch.cuda.is_available():
        raise ConfigurationError(f"LLM_DEVICE={settings.device}: no CUDA device is usable here; set it to cpu or auto")
    count = torch.cuda.device_count()
    if (device.index or 0) >= count:
        raise ConfigurationError(
            f"LLM_DEVICE={settings.device}: the last CUDA device here is cuda:{count - 1}; set it to that, cpu or auto"
        )
    return device


def dtype_of(settings: Settings, device: torch.device) -> torch.dtype | None:
    """Return the number type of LLM_DTYPE; None is that of the checkpoint. CPUs are sure to compute float32 fast."""
    if settings.dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[settings.dtype]
    return torch.float32 if device.type == "cpu" else None


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the bars and the advice that libraries print while they load; this package reports the errors."""
    loggers = transformers.logging, huggingface_hub.utils.logging
    levels = [library.get_verbosity() for library in loggers]
    bars = transformers.logging.is_progress_bar_enabled()
    for library in loggers:
        library.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library, level in zip(loggers, levels, strict=True):
            library.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
