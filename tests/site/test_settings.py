"""The settings in a fresh interpreter, as an operator's environment makes them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chatsite.secret import secret_key
from tests.server import ROOT

PROGRAM = """
import json, django
from django.conf import settings
django.setup()
from llm.conf import get_settings
names = ["DEBUG", "ALLOWED_HOSTS", "SESSION_COOKIE_SECURE", "SECURE_HSTS_SECONDS", "SESSION_COOKIE_AGE"]
names.append("CSRF_TRUSTED_ORIGINS")
found = {name: getattr(settings, name) for name in names}
found |= {"var": str(settings.CHATSTREAM_VAR)}
found |= {"llm_var": get_settings().var, "llm_queue": get_settings().max_queue_size}
print(json.dumps(found))
"""


def environment(var: Path, **values: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | {"DJANGO_SETTINGS_MODULE": "chatsite.settings", "CHATSTREAM_VAR": str(var)} | values


def settings(var: Path, **values: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment(var, **values), capture_output=True, check=True
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_defaults_are_safe_on_loopback(tmp_path: Path) -> None:
    found = settings(tmp_path / "new" / "var")
    assert found == {
        "DEBUG": False,
        "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]"],
        "SESSION_COOKIE_SECURE": False,
        "SECURE_HSTS_SECONDS": 0,
        "SESSION_COOKIE_AGE": 365 * 24 * 60 * 60,
        "CSRF_TRUSTED_ORIGINS": [],
        "var": str(tmp_path / "new" / "var"),
        "llm_var": str(tmp_path / "new" / "var"),
        "llm_queue": 64,
    }


def test_values_come_from_the_environment(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        BEHIND_PROXY="1",
        ALLOWED_HOSTS="chat.example.org",
        CHAT_ORIGINS="https://chat.example.org:8443",
        CHAT_SESSION_DAYS="2",
        LLM_MAX_QUEUE_SIZE="7",
    )
    assert found["SESSION_COOKIE_SECURE"] is True
    assert found["SECURE_HSTS_SECONDS"] == 365 * 24 * 60 * 60
    assert found["ALLOWED_HOSTS"] == ["chat.example.org"]
    assert found["SESSION_COOKIE_AGE"] == 2 * 24 * 60 * 60
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://chat.example.org:8443"]
    assert found["llm_queue"] == 7


@pytest.mark.parametrize(
    ("name", "value", "id"), [("CHAT_MESSAGE_MAX_CHARS", "lots", "chat.E001"), ("LLM_MAX_QUEUE_SIZE", "-1", "llm.E001")]
)
def test_a_wrong_value_is_a_line_for_the_operator_and_no_traceback(
    tmp_path: Path, name: str, value: str, id: str
) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=ROOT,
        env=environment(tmp_path, **{name: value}),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert id in done.stderr
    assert f"{name}={value}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: secret_key(path), range(32)))
    assert len(keys) == 1
    assert len(keys.pop()) == 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret_key"]
