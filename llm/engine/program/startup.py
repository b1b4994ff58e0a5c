"""Finds the step program for a model that is about to be served: kept from the last start, made now, or none.

It is used only if its logits are those of the model's own modules, which serve in its place otherwise.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers

from llm import diskcache
from llm.engine import verify
from llm.engine.attention import kernels
from llm.engine.linear.layer import Choose, plain
from llm.engine.model_runner import Forward, PackedModel
from llm.engine.program import capture, emission, graphs, operations, passes
from llm.engine.program.program import Program, Text, written
from llm.errors import one_line

logger = logging.getLogger(__name__)

MAKERS = (capture, emission, graphs, kernels, operations, passes)
"""The modules whose code decides what a text is."""


def programmed(eager: PackedModel, folder: Path, choose: Choose = plain) -> Forward:
    """Return the program of a packed model, `eager` itself if there is none. Texts are kept in `folder`."""
    try:
        program = _kept(eager, folder) or _made(eager, folder)
    except Exception as error:  # noqa: BLE001 whatever it is, the modules can do without
        kind = eager.model.config.model_type
        logger.warning("%s has no step program (%s). Its modules are used, which is slower.", kind, one_line(error))
        return eager
    return program if choose is plain else program.rebound(choose)


def _kept(eager: PackedModel, folder: Path) -> Program | None:
    target = file(folder, eager.model)
    try:
        text = target.read_text()
        diskcache.used(target)
        return checked(text, eager)
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 a file may hold anything
        logger.warning("The kept step program is of no use (%s); it is made again.", one_line(error))
        return None


def _made(eager: PackedModel, folder: Path) -> Program:
    text = written(eager.model)
    program = checked(text, eager)
    try:
        diskcache.keep(file(folder, eager.model), lambda target: target.write_text(text))
    except OSError as error:
        logger.warning("The step program cannot be kept: %s", error)
    return program


def checked(text: str, eager: PackedModel) -> Program:
    """Return the program. Its logits are compared with the modules': prompts in chunks, two in decode, one alone."""
    program = Program(Text(text, eager.model), eager.layout, eager.vocabulary)
    conversations = verify.conversations(eager.model)
    expected = verify.packed_logits(eager, conversations)
    verify.compare(verify.packed_logits(program, conversations), expected, verify.tolerance(eager.model))
    return program


def file(folder: Path, model: Any) -> Path:
    """Return where the text for such a model is kept, as long as everything that decides it is unchanged."""
    told = [torch.__version__, transformers.__version__, type(model).__qualname__, str(model.dtype), model.device.type]
    told += [source.read_text() for maker in MAKERS for source in _sources(maker)]
    told += [model.config.to_json_string(use_diff=False), str(model)]
    return folder / f"{model.config.model_type}-{hashlib.sha256(repr(told).encode()).hexdigest()[:16]}.py"


def _sources(module: ModuleType) -> list[Path]:
    """Return the file of a module, or all files of a package."""
    target = Path(str(module.__file__))
    return sorted(target.parent.glob("*.py")) if target.name == "__init__.py" else [target]
