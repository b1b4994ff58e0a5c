"""What the tests of the chat say of SQLite, said of PostgreSQL, where rows and not the database are locked."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.server import ROOT

CONTRACTS = (
    "history/test_history.py",
    "history/test_contention.py",
    "cluster/test_heartbeat.py",
    "test_admin.py",
    "test_admin_of_many_rows.py",
)

LEFT_OPEN = (
    "-W",
    "ignore:.*was deleted while still open:ResourceWarning",
    "-W",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""The connections of threads that tests leave behind."""


def run(database: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--reuse-db", "-p", "no:cacheprovider", *LEFT_OPEN, *arguments],
        cwd=ROOT / "tests" / "chat",
        env=os.environ | {"DATABASE_URL": database},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(180)
def test_histories_signs_of_life_and_the_admin(postgresql: str) -> None:
    run(postgresql, *CONTRACTS)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_everything_of_the_chat(postgresql: str) -> None:
    run(postgresql, ".", *(f"--ignore={name}" for name in (*CONTRACTS, "history/test_postgresql.py")))
