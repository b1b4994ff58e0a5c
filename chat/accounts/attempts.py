"""Limits how often one address may try to get in: failed attempts in a minute.

Knows no names and no passwords, so nobody can lock another one's account from elsewhere.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render

from chat.conf import get_settings
from chat.errors import RateLimited
from chat.visitors import addresses
from chat.visitors.limiter import Limiter

View = Callable[..., HttpResponseBase]


def limited(*, successes: bool = False) -> Callable[[View], View]:
    """Decorate a view whose form may fail only so often; `successes` count as well, where each costs something."""

    def of(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            address = addresses.of_request(request)
            if request.method != "POST" or not address:
                return view(request, *args, **kwargs)
            try:
                counted = attempts().take([(get_settings().sign_ins_per_minute, f"sign-in {address}")])
            except RateLimited as refused:
                return _refused(request, refused)
            response = view(request, *args, **kwargs)
            if response.status_code == 302 and not successes:
                attempts().give_back(counted)
            return response

        return checked

    return of


@functools.cache
def attempts() -> Limiter:
    """Return this process's limiter of attempts to sign in."""
    return Limiter("attempts to sign in")


def _refused(request: HttpRequest, refused: RateLimited) -> HttpResponseBase:
    wait = int(refused.retry_after or 1)
    response = render(request, "chat/account/refused.html", {"seconds": wait}, status=429)
    response["Retry-After"] = str(wait)
    return response


@receiver(setting_changed, dispatch_uid="chat.accounts.attempts")
def _forget(*, setting: str, **_: object) -> None:
    if setting in ("CHAT_SIGN_INS_PER_MINUTE", "REDIS_URL"):
        attempts.cache_clear()
