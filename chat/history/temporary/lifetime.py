"""Says how long temporary chats live.

They begin with the first temporary message of a visitor's session and are gone KEEP_SECONDS after the last one, at
sign-out, or when their visitor deletes them. The oldest messages go earlier, beyond `chats.LIMIT`. What has ended is
out of sight at once, and `chat.retention` deletes its row.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.contrib.sessions.models import Session
from django.db.models import QuerySet

KEEP_SECONDS = 12 * 60 * 60


def end_of(now: datetime) -> datetime:
    """Return when chats end whose last message came `now`."""
    return now + timedelta(seconds=KEEP_SECONDS)


def alive(now: datetime) -> QuerySet[Session]:
    """Return the sessions that have not ended."""
    return Session.objects.filter(expire_date__gt=now)


def forget(key: str) -> None:
    """End the temporary chats of a session, with their text, when its visitor signs out."""
    Session.objects.filter(pk=key).delete()
