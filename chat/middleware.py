"""Tells the sockets of this process and of the others what a request did to sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from chat.turns.registry import get_turns
from chat.visitors import identity

GRACE = 1.0
"""Seconds from the end of a session to the end of its sockets.

A page whose socket closes fetches a session. It must have taken the cookie of this answer before, or the one it fetches
would come after it and sign the visitor out again.
"""


@sync_and_async_middleware
def sessions(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Have the sockets of visitors who signed in or out check their sessions. Goes before the session's middleware."""
    if not iscoroutinefunction(get_response):
        return get_response  # no event loop, so no sockets either

    async def tell(request: HttpRequest) -> HttpResponse:
        response = await asked(request)
        for visitor in identity.changed(request):
            asyncio.get_running_loop().call_later(GRACE, get_turns().hub.recheck, visitor)
        return response

    asked: Callable[[HttpRequest], Awaitable[HttpResponse]] = get_response
    return tell
