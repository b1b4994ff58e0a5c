"""Database work from the event loop: short functions, each run whole in a thread.

Consumers would all share one thread otherwise, and one slow query would hold up every socket. SQLite has one writer
at a time, so the writes of a process queue up in one thread of its own and never wait for each other in the database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async

P = ParamSpec("P")
R = TypeVar("R")

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-writer")


def reading(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """`function` as a coroutine, on the loop's thread pool."""
    made: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False)
    return made


def writing(function: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    """`function` as a coroutine, after all earlier writes of this process."""
    made: Callable[P, Awaitable[R]] = database_sync_to_async(function, thread_sensitive=False, executor=_writer)
    return made
