"""Settings of the chat and the checks that speak for them."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from chat import checks
from chat.conf import FIELDS, ChatSettings, from_mapping, get_settings


def test_values_come_as_strings_and_others_are_not_looked_at() -> None:
    values = {
        "CHAT_MESSAGE_MAX_CHARS": "100",
        "CHAT_ORIGINS": " https://chat.example.org/ ,http://other:81 ",
        "DEBUG": "nonsense",
    }
    expected = ChatSettings(message_max_chars=100, origins=("https://chat.example.org", "http://other:81"))
    assert from_mapping(values) == expected
    assert from_mapping({}) == ChatSettings()


@pytest.mark.parametrize(
    ("value", "origin"),
    [
        ("https://Chat.Example.org:443/", "https://chat.example.org"),
        ("http://[::1]:80", "http://[::1]"),
        ("https://chat.example.org:80", "https://chat.example.org:80"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_origin_is_taken_as_browsers_write_it(value: str, origin: str) -> None:
    assert from_mapping({"CHAT_ORIGINS": value}).origins == (origin,)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHAT_ORIGINS", "chat.example.org"),
        ("CHAT_ORIGINS", "https://chat.example.org/chat"),
        ("CHAT_ORIGINS", "https://*.example.org"),
        ("CHAT_ORIGINS", "https://one.example,two.example"),
        ("CHAT_MESSAGE_MAX_CHARS", "many"),
        ("CHAT_MESSAGE_MAX_CHARS", "0"),
        ("CHAT_WATCHES_PER_SOCKET", "-1"),
        ("CHAT_SESSION_DAYS", "1.5"),
        ("CHAT_SESSION_DAYS", "1e9"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(name: str, value: str) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        from_mapping({name: value})
    assert str(error.value).startswith(f"{name}={value}: expected")
    assert "\n" not in str(error.value)
    assert from_mapping({name: value}, strict=False) == ChatSettings()
    with override_settings(**{name: value}), pytest.raises(SystemCheckError, match="chat.E001"):
        call_command("check")


def test_a_changed_setting_counts_at_once() -> None:
    before = get_settings()
    with override_settings(CHAT_MESSAGE_MAX_CHARS="7"):
        assert get_settings().message_max_chars == 7
    assert get_settings() == before


def test_missing_front_end_packages_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FRONT_END", ("vendor/not-installed.js",))
    with pytest.raises(SystemCheckError, match=r"(?s)make run.*") as error:
        call_command("check")
    assert "chat.E002" in str(error.value)


def test_names_are_those_of_the_fields() -> None:
    assert set(FIELDS) == {
        "CHAT_MESSAGE_MAX_CHARS",
        "CHAT_WATCHES_PER_SOCKET",
        "CHAT_UNWATCHED_SECONDS",
        "CHAT_MESSAGES_PER_MINUTE",
        "CHAT_MESSAGES_PER_MINUTE_PER_ADDRESS",
        "CHAT_SOCKETS_PER_VISITOR",
        "CHAT_DRAIN_SECONDS",
        "CHAT_LOGIN_REQUIRED",
        "CHAT_SIGN_UP",
        "CHAT_SIGN_INS_PER_MINUTE",
        "CHAT_SYSTEM_PROMPT",
        "CHAT_ORIGINS",
        "CHAT_SESSION_DAYS",
        "CHAT_REVALIDATE_SECONDS",
        "CHAT_TEMPORARY",
    }
