"""Prepares the forward of a loaded model as it is served: packed, as a program, its products by LLM_QUANTIZATION."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from llm import diskcache
from llm.conf import Settings
from llm.engine import verify
from llm.engine.linear import calibration, int8
from llm.engine.linear.quantize import quantized
from llm.engine.model_runner import Forward
from llm.engine.program.program import Program
from llm.engine.program.startup import programmed
from llm.errors import ConfigurationError
from llm.loading.loader import LoadedModel
from llm.status import Progress

logger = logging.getLogger(__name__)

FEWEST = 32
"""Tokens of the shortest calibration text from which an error can be told."""
KEPT = 8
"""Step programs, and choices of products, to keep: each is of one model, one machine and one version of the code."""


def forward(settings: Settings, loaded: LoadedModel, context: int, progress: Progress) -> tuple[Forward, str]:
    """Return the forward, and in words how it computes. Raises Unsupported, ConfigurationError."""
    folder = settings.var_path / "programs"
    found = _computing(settings, loaded, context, progress, folder)
    for kind, keep in (("py", KEPT), ("safetensors", KEPT), ("partial", 0)):
        diskcache.tidy(folder.glob(f"*.{kind}"), keep)
    return found


def _computing(
    settings: Settings, loaded: LoadedModel, context: int, progress: Progress, folder: Path
) -> tuple[Forward, str]:
    model = loaded.model
    numbers = str(model.dtype).removeprefix("torch.")
    wanted = _quantizes(settings, model.device, model.dtype)
    eager = verify.packed(model, context)
    progress("making the step program", None)
    program = programmed(eager, folder)
    if not isinstance(program, Program) or not _packs(model.device, model.dtype):
        return program, numbers
    progress("choosing how linear layers are computed", None)
    ready, words = quantized(program, _calibration(settings, loaded, context) if wanted else None, folder)
    return ready, words if words == numbers else f"{numbers}, {words}"


def _calibration(settings: Settings, loaded: LoadedModel, context: int) -> list[int] | None:
    """Return the tokens by which a model's losses are measured; None if they cannot be, or need not be, measured."""
    tokens: list[int] = loaded.tokenizer(calibration.TEXT)["input_ids"][:context]
    if len(tokens) < FEWEST:
        logger.warning("The tokenizer makes next to nothing of the calibration text: no int8 for this model.")
        return None
    if not int8.works():
        setting = f"LLM_QUANTIZATION={settings.quantization}"
        logger.warning("No products of 8-bit numbers work on this machine: %s goes without, slower.", setting)
    return tokens


def _quantizes(settings: Settings, device: torch.device, dtype: torch.dtype) -> bool:
    fits = _packs(device, dtype)
    if settings.quantization == "int8" and not fits:
        raise ConfigurationError(
            "LLM_QUANTIZATION=int8: works on the CPU and with float32 only "
            f"(this is {device}, {str(dtype).removeprefix('torch.')}); set it to auto"
        )
    return fits and settings.quantization != "none"


def _packs(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether there are products other than the model's own for this device and number type."""
    return device.type == "cpu" and dtype == torch.float32
