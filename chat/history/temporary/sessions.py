"""Keeps temporary chats in sessions of their own, so that their text is in no table of the chat.

A visitor's session names a further one that holds the text and nothing else; so nothing that HTTP writes to the
visitor's session is ever overwritten from a socket. Whatever SESSION_ENGINE says, it lies in the database, because it
is written together with rows of the chat.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import msgspec
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from chat.errors import NotFound
from chat.history.temporary.chats import TemporaryChats
from chat.history.temporary.lifetime import alive, end_of
from chat.history.values import Caller

logger = logging.getLogger(__name__)

CONTENT = "temporary chats"
"""The only key of such a session."""


@contextlib.contextmanager
def opened(key: str, *, begin: bool = False) -> Iterator[TemporaryChats]:
    """Lock the chats of a session, and store them if nothing goes wrong. Raises NotFound, unless it may begin now."""
    if not key:
        raise NotFound
    now = timezone.now()
    with transaction.atomic():
        if begin:
            new = {"session_data": _encoded(TemporaryChats()), "expire_date": end_of(now)}
            Session.objects.get_or_create(pk=key, defaults=new)
        row = Session.objects.select_for_update().filter(pk=key).first()
        chats = None if row is None or row.expire_date <= now else _decoded(row)
        if row is None or (chats is None and not begin):
            raise NotFound
        chats = chats or TemporaryChats()
        yield chats
        if chats.chats:
            row.session_data = _encoded(chats)
            row.expire_date = end_of(now)
            row.save()
        else:
            row.delete()


def load(caller: Caller) -> TemporaryChats:
    """Return the chats of the caller's session, to look at."""
    row = alive(timezone.now()).filter(pk=caller.temporary).first()
    return (None if row is None else _decoded(row)) or TemporaryChats()


def _encoded(chats: TemporaryChats) -> str:
    return str(SessionStore().encode({CONTENT: msgspec.to_builtins(chats, str_keys=True)}))


def _decoded(row: Session) -> TemporaryChats | None:
    """Return the chats in a session; None if they cannot be read, and so have ended.

    Another version or another SECRET_KEY wrote them. To raise would keep their visitor's list from being shown, and
    the end of an answer in them from being stored, for as long as they live.
    """
    found = SessionStore().decode(row.session_data).get(CONTENT)
    try:
        return msgspec.convert(found, TemporaryChats, str_keys=True)
    except msgspec.ValidationError as error:
        logger.warning("The temporary chats of a session cannot be read, and have ended: %s", error)
        return None
