"""Says who a visitor is: an id in the Django session, the same for all browsers of an account.

The session is the only place that ties a browser to its id, and only HTTP writes it: a socket cannot set a cookie.
"""

from __future__ import annotations

import secrets
from datetime import date
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model, load_backend, logout
from django.contrib.auth import SESSION_KEY as ACCOUNT
from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.db.models.functions import Now
from django.dispatch import receiver
from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from chat.conf import get_settings
from chat.db import read
from chat.history.owners import locked
from chat.history.temporary.lifetime import forget
from chat.history.values import Caller
from chat.models import Conversation, Generation, Visitor

KEY = "visitor"
DAY = "visited"
TEMPORARY = "temporary"


def of_session(session: SessionBase) -> Caller | None:
    """Return who a request of this session comes from.

    None before its first page, and once its account has ended the session or may not sign in any more.
    """
    visitor = session.get(KEY)
    if visitor is None or not _welcome(session):
        return None
    return Caller(UUID(visitor), session.get(TEMPORARY, ""))


async def of_scope(scope: dict[str, Any]) -> Caller | None:
    """Return who a socket comes from, as `of_session`. Raises HistoryUnavailable."""
    return await read(of_session, scope["session"])


async def remains(key: str, caller: Caller) -> bool:
    """Tell whether there still is a session of this key that is the caller's. It is read anew, and never written.

    Raises HistoryUnavailable.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore(key)
    return await read(of_session, store) == caller


def ensure(request: HttpRequest) -> Caller | None:
    """Return the visitor of a page, and make a new one known to the session, whose age counts from today.

    None for a client that sends no cookie at all, as crawlers do: a session that it does not keep would be a row for
    each page. It gets the cookie of the forms first, and comes back with that if it keeps cookies.
    """
    if not request.COOKIES:
        return None
    session, user = request.session, request.user
    if not _welcome(session):
        logout(request)
    if KEY not in session:
        session[KEY] = str(_of_account(user, None) if user.is_authenticated else uuid4())
    if TEMPORARY not in session:
        session[TEMPORARY] = secrets.token_hex(16)
    today = date.today().isoformat()
    if session.get(DAY) != today:
        session[DAY] = today
    return Caller(UUID(session[KEY]), session[TEMPORARY])


@receiver(user_logged_in, dispatch_uid="chat.visitors.identity.signed_in")
def signed_in(*, request: HttpRequest, user: AbstractBaseUser, **_: object) -> None:
    """Make the browser the account's visitor from here on, and what it said before the account's."""
    browser = request.session.get(KEY)
    request.session[KEY] = str(_of_account(user, None if browser is None else UUID(browser)))
    _changed(request, browser)


@receiver(user_logged_out, dispatch_uid="chat.visitors.identity.signed_out")
def signed_out(*, request: HttpRequest, **_: object) -> None:
    """Delete the browser's temporary chats; the session itself is about to end."""
    forget(request.session.get(TEMPORARY, ""))
    _changed(request, request.session.get(KEY))


def changed(request: HttpRequest) -> set[UUID]:
    """Return the visitors of whom this request ended a session, or gave it to another one."""
    found: set[UUID] = getattr(request, "_visitors_changed", set())
    return found


def _changed(request: HttpRequest, visitor: str | None) -> None:
    if visitor is not None:
        request._visitors_changed = changed(request) | {UUID(visitor)}  # type: ignore[attr-defined]


def _welcome(session: SessionBase) -> bool:
    """Tell whether a session's account is active and has kept its password since, or the session is nobody's.

    Django's `get_user` does the same, and ends or renews the session on the way, whose cookie only HTTP could change.
    """
    if ACCOUNT not in session:
        return not get_settings().login_required
    backend = session.get(BACKEND_SESSION_KEY)
    user = (
        load_backend(str(backend)).get_user(session[ACCOUNT]) if backend in settings.AUTHENTICATION_BACKENDS else None
    )
    if user is None:
        return False
    known = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(session.get(HASH_SESSION_KEY, ""), each) for each in known)


@transaction.atomic
def _of_account(user: Any, browser: UUID | None) -> UUID:
    """Return the account's visitor. The browser's own becomes it, or hands its rows over if the account has one.

    The account is locked, so that two browsers that sign in at once do not make it two visitors.
    """
    get_user_model()._default_manager.select_for_update(no_key=True).get(pk=user.pk)
    account = Visitor.objects.select_for_update(no_key=True).filter(user=user).first()
    own = None if browser is None else locked(browser)
    free = own is not None and own.user is None
    if account is None:
        account = own if own is not None and free and own.became is None else Visitor()
        account.user = user
        account.save()
    elif own is not None and free:
        Conversation.objects.filter(visitor=own).update(visitor=account)
        _keep_apart(own, account)
        Generation.objects.filter(visitor=own).update(visitor=account)
        # The row stays for a day, for the sockets that are still open: see chat.history.owners.
        Visitor.objects.filter(pk=own.pk).update(became=account, created=Now())
    return account.pk


def _keep_apart(own: Visitor, account: Visitor) -> None:
    """Forget those request ids of a browser that the account has as well; the others still say what was accepted."""
    taken = Generation.objects.filter(visitor=account, request_id__isnull=False).values("request_id")
    Generation.objects.filter(visitor=own, request_id__in=taken).update(request_id=None)
