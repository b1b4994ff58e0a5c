"""Deletes what is no longer needed: deleted conversations, sessions that ended or never became a visitor's.

One of the web processes does so once a minute, in a thread of its own, so that no turn waits for it. Each batch is a
short transaction, so that no message waits long for SQLite's one writer. What a run leaves behind, the next one finds.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from importlib import import_module
from uuid import UUID

import msgspec
from channels.db import database_sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY as ACCOUNT
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import Error, transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from chat.models import Chore, Conversation, Feedback, Generation, Message, Visitor
from chat.visitors import identity

logger = logging.getLogger(__name__)

CHORE = "purge"

EVERY = timedelta(seconds=60)

DELETED = timedelta(seconds=60)
"""How long a deleted conversation can be restored."""

UNUSED = timedelta(days=1)
"""How old a session without a message may become, and a visitor to whom no row belongs."""

BATCH = 200
"""How many rows are looked at, or deleted, at a time."""


class Purged(msgspec.Struct, frozen=True):
    """How many rows of each kind were deleted."""

    conversations: int
    expired_sessions: int
    unused_sessions: int
    visitors: int


def begin() -> bool:
    """Tell whether it is time, and the caller is the one to do it: one of several processes that ask gets True."""
    _, first = Chore.objects.get_or_create(pk=CHORE, defaults={"begun": Now()})
    return first or bool(Chore.objects.filter(pk=CHORE, begun__lte=Now() - EVERY).update(begun=Now()))


def purge(*, all_sessions: bool = False, stop: threading.Event | None = None) -> Purged:
    """Delete what is due. Sessions that an earlier run has looked at are left, unless `all_sessions` are wanted.

    Once `stop` is set it returns soon, wherever it is. What cannot be deleted keeps nothing of another kind: the errors
    are raised together, as an ExceptionGroup, when all the rest is done.
    """
    stop = stop or threading.Event()
    purged, errors = dict[str, int](), list[Exception]()
    for kind, purging in {
        "conversations": lambda: _conversations(stop),
        "expired_sessions": lambda: Session.objects.filter(expire_date__lt=timezone.now()).delete()[0],
        "unused_sessions": lambda: _unused_sessions(stop, all_sessions=all_sessions),
        "visitors": _visitors,
    }.items():
        try:
            purged[kind] = purging()
        except Exception as error:  # noqa: BLE001 raised below
            errors.append(error)
    if errors:
        raise ExceptionGroup("some of what is no longer needed could not be deleted", errors)
    return Purged(**purged)


def delete_conversations(keys: Sequence[UUID]) -> None:
    """Delete conversations with all that belongs to them, a batch at a time."""
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        with transaction.atomic():
            _delete(list(Conversation.objects.select_for_update().filter(pk__in=batch).values_list("pk", flat=True)))


def _delete(keys: Sequence[UUID]) -> None:
    """Delete conversations whose rows the caller has locked.

    Django's own cascade would fetch every message, and look for the messages below each of them.
    """
    Feedback.objects.filter(answer__conversation__in=keys).delete()
    Generation.objects.filter(conversation__in=keys).delete()
    messages = Message.objects.filter(conversation__in=keys)
    messages._raw_delete(messages.db)
    Conversation.objects.filter(pk__in=keys).delete()


def _conversations(stop: threading.Event) -> int:
    due, count = Conversation.objects.filter(deleted__lte=Now() - DELETED), 0
    while not stop.is_set():
        with transaction.atomic():
            keys = list(due.select_for_update().values_list("pk", flat=True)[:BATCH])
            _delete(keys)
        if not keys:
            break
        count += len(keys)
    return count


def _unused_sessions(stop: threading.Event, *, all_sessions: bool) -> int:
    """Delete the sessions of visitors who never sent a message: of people who only looked, mostly.

    Each session is looked at once, a day after it was last written.
    """
    lasts = timedelta(seconds=settings.SESSION_COOKIE_AGE)
    delete, count = import_module(settings.SESSION_ENGINE).SessionStore().delete, 0
    since = None if all_sessions else Chore.objects.filter(pk=CHORE).values_list("done_until", flat=True).first()
    for batch in _sessions(since and since + lasts, timezone.now() - UNUSED + lasts):
        for key in _without_visitor(batch):
            delete(key)
            count += 1
        if not all_sessions:
            Chore.objects.filter(pk=CHORE).update(done_until=batch[-1].expire_date - lasts)
        if stop.is_set():
            break
    return count


def _sessions(since: datetime | None, until: datetime) -> Iterator[list[Session]]:
    """Yield the sessions that end in between, in batches, the first to end first."""
    rows = Session.objects.filter(expire_date__lte=until).order_by("expire_date", "pk")
    after = Q() if since is None else Q(expire_date__gt=since)
    while batch := list(rows.filter(after)[:BATCH]):
        yield batch
        last = batch[-1]
        after = Q(expire_date__gt=last.expire_date) | Q(expire_date=last.expire_date, pk__gt=last.pk)


def _without_visitor(sessions: Iterable[Session]) -> list[str]:
    """Return the keys of those that name no account, and a visitor who does not exist."""
    decode = SessionStore().decode
    found = {row.pk: data for row in sessions if identity.KEY in (data := decode(row.session_data))}
    named = {key: _uuid(data[identity.KEY]) for key, data in found.items() if ACCOUNT not in data}
    known = set(Visitor.objects.filter(pk__in=[each for each in named.values() if each]).values_list("pk", flat=True))
    return [key for key, visitor in named.items() if visitor not in known]


def _uuid(found: object) -> UUID | None:
    try:
        return UUID(str(found))
    except ValueError:  # nobody's
        return None


def _visitors() -> int:
    """Delete visitors without an account who have nothing any more."""
    rows = Visitor.objects.filter(user=None, created__lte=Now() - UNUSED)
    for relation in Visitor._meta.related_objects:
        theirs = relation.related_model._default_manager.filter(**{relation.field.name: OuterRef("pk")})
        rows = rows.exclude(Exists(theirs))
    keys = list(rows.values_list("pk", flat=True)[:BATCH])
    return Visitor.objects.filter(pk__in=keys).delete()[0]


class Retention:
    """Purges once a minute for as long as this process lives. Belongs to one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chat-retention")
        self._stop = threading.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self._thread.shutdown)

    async def once(self) -> Purged | None:
        """Purge, if it is time and no other process does it."""
        work = database_sync_to_async(self._purge_if_due, thread_sensitive=False, executor=self._thread)
        purged: Purged | None = await work()
        return purged

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
            except* Error as away:
                logger.error("The purge failed; it is tried again in a minute: %s", away.exceptions[0])
            except* Exception:
                logger.exception("The purge failed; it is tried again in a minute")
            await asyncio.sleep(EVERY.total_seconds())

    def _purge_if_due(self) -> Purged | None:
        return purge(stop=self._stop) if begin() else None
