"""Runs database work from the event loop: short functions, each of them whole in a thread.

Consumers would all share one thread otherwise, and one slow query would hold up every socket. SQLite has one writer
at a time, so the writes of a process queue up in one thread of its own and never wait for each other in the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, InternalError, OperationalError

from chat.errors import HistoryUnavailable

P = ParamSpec("P")
R = TypeVar("R")

SECONDS = 20.0
"""How long the database may take, with the wait for a thread, before it counts as away.

What hangs there is not ended by that, since nothing ends a thread; but nobody waits for it for ever.
"""

AWAY = (OperationalError, InterfaceError, InternalError, TimeoutError)
"""What is raised while the database is away, starts, or has ended a transaction or a connection of ours."""

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-writer")


def reading(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Return `function` as a coroutine function that runs in the loop's thread pool."""
    made: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False)
    return made


def writing(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """Return `function` as a coroutine function that runs after all earlier writes of this process."""
    made: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False, executor=_writer)
    return made


async def read(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in the loop's thread pool. Raises HistoryUnavailable when the database is away."""
    return await _answered(reading(function)(*args, **kwargs))


async def write(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` after all earlier writes. Raises HistoryUnavailable when the database is away.

    What was to be written may then be there all the same.
    """
    return await _answered(writing(function)(*args, **kwargs))


async def _answered(doing: Awaitable[R]) -> R:
    try:
        async with asyncio.timeout(SECONDS):
            return await doing
    except AWAY as error:
        raise HistoryUnavailable from error
