"""What is no longer needed goes: deleted conversations, sessions that ended or never became a visitor's.

Each batch is a short transaction of its own, so that no message waits long for SQLite's one writer; what one run leaves
behind, the next one finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from importlib import import_module
from threading import Event
from uuid import UUID

import msgspec
from django.conf import settings
from django.contrib.auth import SESSION_KEY as ACCOUNT
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone

from chat import visitors
from chat.models import Chore, Conversation, Visitor

CHORE = "purge"

EVERY = timedelta(seconds=60)

DELETED = timedelta(seconds=60)
"""How long a deleted conversation can be restored."""

UNUSED = timedelta(days=1)
"""How long a session may do without a message, and a visitor without anything of theirs."""

BATCH = 200
"""Rows that are looked at, or deleted, at a time."""


class Purged(msgspec.Struct, frozen=True):
    """How many of each are gone."""

    conversations: int
    expired_sessions: int
    unused_sessions: int
    visitors: int


def begin() -> bool:
    """It is time, and the caller is the one to do it: of several processes that ask, one gets yes."""
    _, first = Chore.objects.get_or_create(pk=CHORE, defaults={"begun": Now()})
    return first or bool(Chore.objects.filter(pk=CHORE, begun__lte=Now() - EVERY).update(begun=Now()))


def purge(*, all_sessions: bool = False, stop: Event | None = None) -> Purged:
    """Delete what is due. Sessions that an earlier run has looked at are left, unless `all_sessions` are wanted.

    Once `stop` is set it comes back soon, wherever it is.
    """
    stop = stop or Event()
    return Purged(
        conversations=_conversations(stop),
        expired_sessions=Session.objects.filter(expire_date__lt=timezone.now()).delete()[0],
        unused_sessions=_unused_sessions(stop, all_sessions=all_sessions),
        visitors=_visitors(),
    )


def _conversations(stop: Event) -> int:
    due, count = Conversation.objects.filter(deleted__lte=Now() - DELETED), 0
    while not stop.is_set():
        with transaction.atomic():
            keys = list(due.select_for_update().values_list("pk", flat=True)[:BATCH])
            Conversation.objects.filter(pk__in=keys).delete()
        if not keys:
            break
        count += len(keys)
    return count


def _unused_sessions(stop: Event, *, all_sessions: bool) -> int:
    """Of visitors who never wrote anything: of crawlers, mostly. One look at each, a day after it was last written."""
    lasts = timedelta(seconds=settings.SESSION_COOKIE_AGE)
    delete, count = import_module(settings.SESSION_ENGINE).SessionStore().delete, 0
    since = None if all_sessions else Chore.objects.filter(pk=CHORE).values_list("mark", flat=True).first()
    for batch in _sessions(since and since + lasts, timezone.now() - UNUSED + lasts):
        for key in _without_visitor(batch):
            delete(key)
            count += 1
        if not all_sessions:
            Chore.objects.filter(pk=CHORE).update(mark=batch[-1].expire_date - lasts)
        if stop.is_set():
            break
    return count


def _sessions(since: datetime | None, until: datetime) -> Iterator[list[Session]]:
    """Those that end in between, in batches, the first to end first."""
    rows = Session.objects.filter(expire_date__lte=until).order_by("expire_date", "pk")
    after = Q() if since is None else Q(expire_date__gt=since)
    while batch := list(rows.filter(after)[:BATCH]):
        yield batch
        last = batch[-1]
        after = Q(expire_date__gt=last.expire_date) | Q(expire_date=last.expire_date, pk__gt=last.pk)


def _without_visitor(sessions: Iterable[Session]) -> list[str]:
    """The keys of those that name a visitor who does not exist, and nobody's account."""
    decode = SessionStore().decode
    found = {row.pk: data for row in sessions if visitors.KEY in (data := decode(row.session_data))}
    named = {key: UUID(data[visitors.KEY]) for key, data in found.items() if ACCOUNT not in data}
    known = set(Visitor.objects.filter(pk__in=named.values()).values_list("pk", flat=True))
    return [key for key, visitor in named.items() if visitor not in known]


def _visitors() -> int:
    """Those of no account who have nothing any more."""
    rows = Visitor.objects.filter(user=None, created__lte=Now() - UNUSED)
    for relation in Visitor._meta.related_objects:
        theirs = relation.related_model._default_manager.filter(**{relation.field.name: OuterRef("pk")})
        rows = rows.exclude(Exists(theirs))
    keys = list(rows.values_list("pk", flat=True)[:BATCH])
    return Visitor.objects.filter(pk__in=keys).delete()[0]
