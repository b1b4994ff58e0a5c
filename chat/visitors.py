"""Who a visitor is: an id in the Django session, the same for all browsers of an account.

The session is the only place that ties a browser to its id, and only HTTP writes it: a socket cannot set a cookie.
"""

from __future__ import annotations

from datetime import date
from typing import Any
from uuid import UUID, uuid4

from django.contrib.auth.models import AbstractBaseUser
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.db import transaction
from django.dispatch import receiver
from django.http import HttpRequest

from chat.database import reading
from chat.models import Conversation, Generation, Visitor

KEY = "visitor"
DAY = "visited"


def of_session(session: SessionBase) -> UUID | None:
    """The visitor this session belongs to, None before its first page."""
    value = session.get(KEY)
    return None if value is None else UUID(value)


async def of_scope(scope: dict[str, Any]) -> UUID | None:
    """The same for a socket."""
    return await reading(of_session)(scope["session"])


def ensure(request: HttpRequest) -> UUID:
    """The visitor of a page, made known to the session if it is a new one; the session lives on from today."""
    session = request.session
    if KEY not in session:
        user = request.user
        session[KEY] = str(_of_account(user, None) if user.is_authenticated else uuid4())
    today = date.today().isoformat()
    if session.get(DAY) != today:
        session[DAY] = today
    return UUID(session[KEY])


@receiver(user_logged_in, dispatch_uid="chat.visitors.signed_in")
def signed_in(*, request: HttpRequest, user: AbstractBaseUser, **_: object) -> None:
    """From here on the browser is the account's visitor, and what it said before is the account's."""
    request.session[KEY] = str(_of_account(user, of_session(request.session)))


@transaction.atomic
def _of_account(user: Any, browser: UUID | None) -> UUID:
    """The account's visitor. The browser's own becomes it, or hands its rows over if the account has one."""
    account = Visitor.objects.filter(user=user).first()
    browser = browser or uuid4()
    own = Visitor.objects.filter(pk=browser).first() or Visitor(pk=browser)
    if account is None:
        account = own if own.user is None else Visitor()
        account.user = user
        account.save()
    elif own.user is None:
        Conversation.objects.filter(visitor=own.pk).update(visitor=account)
        # The frame ids were unique to the browser; they need not be among those of all the account's browsers.
        Generation.objects.filter(visitor=own.pk).update(visitor=account, frame=None)
        Visitor.objects.filter(pk=own.pk).delete()
    return account.pk
