"""Defines the settings of this package: their names, types, defaults and ranges, in one place.

It knows nothing of Django or of the environment: `llm.apps` fills it from `django.conf.settings`, the llm service from
its standard input. The setting `LLM_MAX_QUEUE_SIZE` is the field `max_queue_size`; `CHATSTREAM_VAR` is the field `var`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llm.errors import ConfigurationError

Positive = Annotated[int, Meta(ge=1, lt=2**31)]
YEAR = 366 * 24 * 3600
Seconds = Annotated[float, Meta(gt=0, le=YEAR)]
"""A duration has an upper bound, because neither the timers of C nor the frames to the service can express infinity."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All settings of one process; the comments give in short what the README's table says at length."""

    model: Annotated[str, Meta(min_length=1)] = "bundled"  # or a hub id, a directory, a .gguf, python:package.function
    model_revision: str = ""  # of a hub id: a branch, a tag or a commit
    backend: Literal["local", "synthetic"] = "local"
    service: str = ""  # tcp://host:port or unix:/path of a service that stays; empty: one is started in var
    service_token: Annotated[str, Meta(max_length=4096)] = ""
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["auto", "none", "int8"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=4096)] | Literal["auto"] = "auto"
    prompt: str = ""  # dotted path of a ChatPrompt class; empty: the model's chat template
    system_prompt: str = ""
    context_length: Annotated[int, Meta(ge=64)] | Literal["auto"] = "auto"
    kv_tokens: Annotated[int, Meta(ge=64)] | Literal["auto"] = "auto"  # memory, shared by all that run
    num_of_concurrent_executions: Annotated[int, Meta(ge=1, le=1024)] = 16
    max_queue_size: Annotated[int, Meta(ge=0, le=100_000)] = 64
    per_visitor_running: Positive = 2
    per_visitor_queued: Annotated[int, Meta(ge=0)] = 2
    queue_timeout: Seconds = 120.0
    generation_timeout: Seconds = 300.0
    stall_seconds: Annotated[float, Meta(ge=1, le=YEAR)] = 30.0
    max_new_tokens: Positive = 512
    synthetic_tokens: Positive = 200
    synthetic_rate: Annotated[float, Meta(gt=0, le=1_000_000)] = 20.0
    var: str = "var"

    @property
    def fingerprint(self) -> str:
        """A hash that is equal for two processes that can share one llm service."""
        here = msgspec.structs.replace(self, service="", service_token="")  # how it is reached is no part of it
        same = msgspec.convert(msgspec.to_builtins(here), Settings)  # 20 and 20.0 are one value
        return hashlib.sha256(msgspec.json.encode(same, order="sorted")).hexdigest()[:16]

    @property
    def var_path(self) -> Path:
        return Path(self.var).absolute()


def setting_name(field: str) -> str:
    """Return the name under which an operator knows a field."""
    return "CHATSTREAM_VAR" if field == "var" else f"LLM_{field.upper()}"


FIELDS: dict[str, str] = {setting_name(field): field for field in Settings.__struct_fields__}


def from_mapping(values: Mapping[str, Any]) -> Settings:
    """Return the settings in a mapping of setting names; other names in the mapping are ignored.

    Strings are converted (`"16"` is 16), so that values may come from the environment as they are. Raises
    ConfigurationError with one line that names the first setting that is wrong.
    """
    found = {FIELDS[name]: value for name, value in values.items() if name in FIELDS}
    if isinstance(found.get("var"), Path):
        found["var"] = str(found["var"])
    for field, value in found.items():
        if isinstance(value, str) and value != _as_text(value):
            raise ConfigurationError(f"{setting_name(field)}: has bytes that are no UTF-8; set it to text")
    try:
        return msgspec.convert(found, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(_in_words(str(error), found)) from error


def _as_text(value: str) -> str:
    """Return what is left of a value on its way to another process: the environment may hold bytes that are no text."""
    return value.encode(errors="replace").decode()


def _in_words(problem: str, found: Mapping[str, Any]) -> str:
    what, _, path = problem.partition(" - at `$.")
    field = path.rstrip("`")
    return f"{setting_name(field)}={found.get(field)!s}: {what[:1].lower()}{what[1:].replace('`', '')}"


_configured: Settings | None = None


def configure(settings: Settings) -> None:
    """Set the settings of this process. Called once, by the AppConfig or by a program that does not use Django."""
    global _configured
    _configured = settings


def get_settings() -> Settings:
    """Return the settings that `configure` was given, else the defaults."""
    return _configured if _configured is not None else Settings()
