"""Checks which page opens a WebSocket: a browser sends cookies along with any page's socket.

Knows nothing of visitors or of the chat.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from chat.conf import DEFAULT_PORTS, get_settings

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

FORBIDDEN = 4403

SAID = 200
"""Characters of a header that are worth a line of the log."""


class OriginCheck:
    """Lets a socket through if its page comes from this site or from one of `CHAT_ORIGINS`.

    A refused socket is accepted and closed with a code, because a browser tells its page nothing about a refused
    handshake, and the page could not tell the operator what to set.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if allowed(scope["headers"]):
            await self.app(scope, receive, send)
            return
        values = _values(scope["headers"])
        origin, host = values.get(b"origin", "")[:SAID], values.get(b"host", "")[:SAID]
        logger.warning("A socket of a page of %r was refused at %r: CHAT_ORIGINS names other origins", origin, host)
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": FORBIDDEN})


def allowed(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether the origin is of this site: its host and port are those of `Host`, which must be one of ours."""
    values = _values(headers)
    origin, host = values.get(b"origin", ""), values.get(b"host", "")
    if origin in get_settings().origins:
        return True
    domain, _ = split_domain_port(host)
    # Without this, a name of the attacker's own that resolves to this machine would be its own origin and host.
    if not domain or not validate_host(domain, settings.ALLOWED_HOSTS):
        return False
    return same_site(origin, scheme=_scheme(values.get(b"x-forwarded-proto", "")), host=host)


def same_site(origin: str, *, scheme: str, host: str) -> bool:
    """Tell whether `scheme://host` and `origin` mean the same server, with its default port written or not."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme == scheme and _with_port(parts.netloc, scheme) == _with_port(host, scheme)


def _values(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """Return the headers by name; values of one that comes several times are joined, as Django does."""
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value.decode("latin-1"))
    return {name: ",".join(values) for name, values in found.items()}


def _scheme(forwarded: str) -> str:
    """Return what the page was asked for with, as Django reads SECURE_PROXY_SSL_HEADER: the first proxy's word."""
    first = forwarded.partition(",")[0].strip()
    return "https" if settings.BEHIND_PROXY and first == "https" else "http"


def _with_port(host: str, scheme: str) -> tuple[str, str]:
    domain, port = split_domain_port(host)
    return domain, port or DEFAULT_PORTS.get(scheme, "")
