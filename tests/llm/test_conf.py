"""Settings: where they come from, what they accept, and how they complain."""

from __future__ import annotations

import pytest
from django.core.checks import CheckMessage
from django.test import override_settings

from llm.checks import check_settings
from llm.conf import FIELDS, Settings, from_mapping
from llm.errors import ConfigurationError


def ids(messages: list[CheckMessage]) -> list[str]:
    return [str(message.id) for message in messages]


def test_strings_of_the_environment_are_converted() -> None:
    settings = from_mapping({"LLM_MAX_QUEUE_SIZE": "7", "LLM_CONTEXT_LENGTH": "4096", "LLM_SYNTHETIC_RATE": "2.5"})
    assert (settings.max_queue_size, settings.context_length, settings.synthetic_rate) == (7, 4096, 2.5)
    assert from_mapping({"LLM_CONTEXT_LENGTH": "auto", "SECRET_KEY": "x"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LLM_MAX_QUEUE_SIZE", "-1"),
        ("LLM_NUM_OF_CONCURRENT_EXECUTIONS", "0"),
        ("LLM_NUM_OF_CONCURRENT_EXECUTIONS", "many"),
        ("LLM_BACKEND", "magic"),
        ("LLM_DEVICE", "tpu"),
        ("LLM_DTYPE", "int3"),
        ("LLM_CONTEXT_LENGTH", "soon"),
        ("LLM_SYNTHETIC_RATE", "0"),
        ("LLM_SYNTHETIC_RATE", "inf"),
        ("LLM_STALL_SECONDS", "1e10"),
        ("LLM_GENERATION_TIMEOUT", "inf"),
        ("LLM_QUEUE_TIMEOUT", "nan"),
        ("LLM_THREADS", "2147483648"),
        ("LLM_MAX_NEW_TOKENS", "1e30"),
        ("LLM_MODEL", ""),
    ],
)
def test_wrong_value_is_one_line_with_name_and_value(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        from_mapping({name: value})
    line = str(error.value)
    assert line.startswith(f"{name}={value}: ")
    assert "\n" not in line
    with override_settings(**{name: value}):
        assert ids(check_settings(None)) == ["llm.E001"]


@pytest.mark.parametrize("name", ["LLM_SERVICE_TOKEN", "LLM_MODEL", "CHATSTREAM_VAR"])
def test_bytes_that_are_no_text_are_one_line(name: str) -> None:
    """They could not be handed to the model's process."""
    with pytest.raises(ConfigurationError, match=f"^{name}: has bytes that are no UTF-8; set it to text$"):
        from_mapping({name: b"caf\xe9".decode(errors="surrogateescape")})
    assert from_mapping({name: "caf\u00e9"})


def test_default_settings_have_no_problem() -> None:
    assert check_settings(None) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"LLM_PROMPT": "no.such.Class"}, "llm.E002"),
        ({"LLM_MODEL": "/nowhere/model"}, "llm.E003"),
        ({"LLM_MODEL": "missing.gguf"}, "llm.E003"),
        ({"LLM_SERVICE": "localhost:1"}, "llm.E005"),
        ({"LLM_SERVICE": "tcp://localhost:1"}, "llm.E005"),
    ],
)
def test_what_cannot_work_is_known_before_loading(values: dict[str, str], expected: str) -> None:
    with override_settings(**values):
        assert ids(check_settings(None)) == [expected]


def test_unknown_name_in_the_environment_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_MAX_QUEU_SIZE", "3")
    assert ids(check_settings(None)) == ["llm.W001"]


def test_fingerprint_tells_settings_apart_by_value() -> None:
    assert Settings(synthetic_rate=20).fingerprint == Settings(synthetic_rate=20.0).fingerprint
    assert Settings().fingerprint != Settings(max_queue_size=1).fingerprint


def test_every_setting_has_a_row_in_the_readme_with_its_default() -> None:
    from tests.readme import settings_table

    table = settings_table()
    for name, field in FIELDS.items():
        default = getattr(Settings(), field)
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert name in table, f"{name} is not in the README"
        assert table[name] == shown, name
