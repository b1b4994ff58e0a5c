"""How many messages a minute: of one visitor, and of one address.

Counts in this process. Knows no sockets and no turns; what a message is, and whether it counts, its callers decide.
"""

from __future__ import annotations

import ipaddress
import math
import time
from typing import Any
from uuid import UUID

from django.conf import settings
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from chat.conf import get_settings
from chat.protocol import ERRORS
from llm.errors import RequestError

Counted = list[tuple[RateLimitItem, str]]


class RateLimited(RequestError):
    """More messages than one may send in a minute."""

    code = "rate_limited"


class Rates:
    """Messages of the last minute; the minute begins with the first of them. Belongs to one event loop."""

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = FixedWindowRateLimiter(self._storage)

    async def take(self, visitor: UUID, address: str = "") -> Counted:
        """Count a message; what comes back undoes that. Raises RateLimited, and has then counted nothing."""
        counted: Counted = []
        for limit, who in _limits(visitor, address):
            counted.append((limit, who))
            if not await self._limiter.hit(limit, who):
                reset, _ = await self._limiter.get_window_stats(limit, who)
                await self.give_back(counted)
                raise RateLimited(ERRORS[RateLimited.code], retry_after=max(1, math.ceil(reset - time.time())))
        return counted

    async def give_back(self, counted: Counted) -> None:
        """The message came to nothing."""
        for limit, who in counted:
            await self._storage.decr(limit.key_for(who))


def address_of(scope: dict[str, Any]) -> str:
    """Where a connection comes from, empty if that is not known; of IPv6 the network, since one person has all of it.

    Behind a proxy it is the last one in X-Forwarded-For: the proxy has written that, the others the client may have.
    """
    address = (scope.get("client") or [""])[0]
    if settings.BEHIND_PROXY:
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        address = ",".join(forwarded).rpartition(",")[2].strip() or address
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _limits(visitor: UUID, address: str) -> Counted:
    chat = get_settings()
    limits = ((chat.messages_per_minute, f"visitor {visitor}"), (chat.messages_per_minute_per_address, address))
    return [(RateLimitItemPerMinute(amount), who) for amount, who in limits if amount and who]
