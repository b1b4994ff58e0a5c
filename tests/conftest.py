"""What every test may use: a `var` of its own, and settings that name no model."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management.commands import flush
from django.db import connections
from django.test import override_settings
from hypothesis import settings

from llm import conf

pytest_plugins = ["tests.server", "tests.stores"]

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("searching", max_examples=2000, deadline=None)
settings.load_profile("repeatable")  # `make test` says the same twice; `make test-long` searches


def pytest_configure() -> None:
    """A script's background job has SIGINT ignored, and hands that on to whatever is started here to be interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def var() -> Iterator[Path]:
    """The folder this run writes into; short, because sockets lie in it."""
    path = Path(tempfile.mkdtemp(prefix="chat-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def llm_settings(var: Path) -> Iterator[None]:
    """The llm service that tests of the web side start has no model: thirty numbers, quickly."""
    before = conf.get_settings()
    conf.configure(conf.Settings(backend="synthetic", synthetic_tokens=30, synthetic_rate=200, var=str(var)))
    yield
    conf.configure(before)


@pytest.fixture(scope="session", autouse=True)
def quick_passwords() -> Iterator[None]:
    """What makes a password hard to guess takes half a second each."""
    with override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"]):
        yield


@pytest.fixture(scope="session")
def django_db_modify_db_settings(var: Path) -> None:
    default = connections["default"]
    if default.vendor == "sqlite":
        default.settings_dict["TEST"]["NAME"] = var / "test.sqlite3"
    else:
        default.settings_dict["OPTIONS"].pop("pool")  # threads that tests leave behind would empty it
        default.ops.sql_flush = _deleted
        flush.emit_post_migrate_signal = lambda *_, **__: None


def _deleted(style: object, tables: list[str], **_: object) -> list[str]:
    """Flushing PostgreSQL: TRUNCATE, and making permissions again, take longer than most tests."""
    kept = ("django_content_type", "auth_permission")
    rows = [f'DELETE FROM "{table}"' for table in tables if table not in kept]  # noqa: S608
    return ["SET LOCAL session_replication_role = replica", *rows]
