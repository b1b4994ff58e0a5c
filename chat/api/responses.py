"""Finds out who asks, and answers in JSON, with the errors that the socket has, for all views of the API."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import msgspec
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from chat.db import read
from chat.errors import SENTENCES, HistoryError
from chat.visitors import identity
from llm.errors import RequestError

View = Callable[..., Coroutine[Any, Any, HttpResponse]]

STATUS = {"not_found": 404, "turn_in_progress": 409, "unavailable": 503}
"""Status codes of the errors of the history that are not 400; other errors of a request are 503."""

as_json = msgspec.json.Encoder().encode


def json(value: Any, status: int = 200) -> HttpResponse:
    return HttpResponse(as_json(value), content_type="application/json", status=status)


def failure(code: str, status: int, message: str = "") -> HttpResponse:
    """Return an error that looks like the frame `error` and has one of its codes."""
    return json({"code": code, "message": message or SENTENCES[code]}, status)


def of_caller(*methods: str) -> Callable[[View], View]:
    """Decorate a view of the caller in the session; it answers 401 to nobody, and 404 for what is not theirs."""

    def of_methods(view: View) -> View:
        @require_http_methods(methods)
        @never_cache
        @wraps(view)
        async def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                caller = await read(identity.of_session, request.session)
                if caller is None:
                    return failure("no_session", 401)
                return await view(request, caller, *args, **kwargs)
            except RequestError as error:
                status = STATUS.get(error.code, 400 if isinstance(error, HistoryError) else 503)
                return failure(error.code, status, error.message)
            except RequestDataTooBig:
                return failure("too_large", 413)
            except msgspec.DecodeError as error:
                return failure("invalid_request", 400, str(error).replace("`", ""))

        return checked

    return of_methods
