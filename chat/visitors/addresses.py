"""Finds out where a connection or a request comes from, as one address of one person.

Of an IPv6 address it is the /64 network, since one person has all of it. Behind a proxy it is the last address in
X-Forwarded-For: the proxy has written that, the others the client may have. It is empty if it is not known.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from django.conf import settings
from django.http import HttpRequest


def of_scope(scope: dict[str, Any]) -> str:
    """Return the address of an ASGI connection."""
    forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return _address((scope.get("client") or [""])[0], ",".join(forwarded))


def of_request(request: HttpRequest) -> str:
    """Return the address of a request, which has none if it came over a unix socket."""
    return _address(request.META.get("REMOTE_ADDR") or "", request.META.get("HTTP_X_FORWARDED_FOR", ""))


def _address(client: str, forwarded: str) -> str:
    if settings.BEHIND_PROXY:
        client = forwarded.rpartition(",")[2].strip() or client
    try:
        parsed = ipaddress.ip_address(client)
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
