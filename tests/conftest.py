"""What every test may use: a `var` of its own, and settings that name no model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connections

from llm import conf

pytest_plugins = ["tests.server"]


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


@pytest.fixture(scope="session")
def django_db_modify_db_settings(var: Path) -> None:
    connections["default"].settings_dict["TEST"]["NAME"] = var / "test.sqlite3"
