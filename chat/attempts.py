"""How often one may try to get in: failed attempts of one address in a minute.

Counts for the whole site in Redis, if it has one; else in this process, as it does while Redis is away. Knows no names
and no passwords, so nobody can lock another one's account from elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

from chat import addresses
from chat.conf import get_settings
from chat.rates import REDIS_SECONDS

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]

_here = FixedWindowRateLimiter(MemoryStorage())


def limited(*, successes: bool = False) -> Callable[[View], View]:
    """A view whose form may fail only so often; `successes` count as well, where each of them costs something."""

    def of(view: View) -> View:
        @wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            limit, address = RateLimitItemPerMinute(get_settings().sign_ins_per_minute), addresses.of_request(request)
            if request.method != "POST" or not limit.amount or not address:
                return view(request, *args, **kwargs)
            who = f"sign-in {address}"
            limiter, wait = _count(limit, who)
            if wait is not None:
                return _refused(request, wait)
            response = view(request, *args, **kwargs)
            if response.status_code == 302 and not successes:
                with contextlib.suppress(StorageError):
                    limiter.storage.incr(limit.key_for(who), limit.get_expiry(), amount=-1)
            return response

        return checked

    return of


def _count(limit: RateLimitItem, who: str) -> tuple[FixedWindowRateLimiter, int | None]:
    """Count an attempt; where it was counted, and the seconds to wait if it is one too many."""
    limiter = _site(settings.REDIS_URL)
    try:
        return limiter, _hit(limiter, limit, who)
    except StorageError as error:
        logger.error("Redis does not count attempts to sign in; this process does: %s", error)
        return _here, _hit(_here, limit, who)


def _hit(limiter: FixedWindowRateLimiter, limit: RateLimitItem, who: str) -> int | None:
    if limiter.hit(limit, who):
        return None
    return max(1, math.ceil(limiter.get_window_stats(limit, who).reset_time - time.time()))


@functools.cache
def _site(url: str) -> FixedWindowRateLimiter:
    if not url:
        return _here
    options: dict[str, Any] = {"socket_timeout": REDIS_SECONDS, "socket_connect_timeout": REDIS_SECONDS}
    pool: Any = ConnectionPool.from_url(url, retry=Retry(NoBackoff(), 1), **options)
    return FixedWindowRateLimiter(RedisStorage(url, connection_pool=pool, wrap_exceptions=True))


def _refused(request: HttpRequest, wait: int) -> HttpResponseBase:
    response = render(request, "chat/account/refused.html", {"seconds": wait}, status=429)
    response["Retry-After"] = str(wait)
    return response


@receiver(setting_changed, dispatch_uid="chat.attempts")
def _forget(*, setting: str, **_: object) -> None:
    if setting == "CHAT_SIGN_INS_PER_MINUTE":
        _here.storage.reset()
