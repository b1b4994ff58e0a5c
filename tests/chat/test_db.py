"""A database that does not answer is away: nobody waits for it for ever."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

import pytest

from chat import db
from chat.errors import HistoryUnavailable


@pytest.mark.parametrize("ask", [db.read, db.write])
async def test_what_hangs_counts_as_away_and_what_comes_after_it_is_done(
    ask: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "SECONDS", 0.1)
    answers = threading.Event()
    with pytest.raises(HistoryUnavailable):
        await ask(answers.wait)
    answers.set()
    monkeypatch.setattr(db, "SECONDS", 20.0)
    assert await ask(lambda: "done") == "done"
