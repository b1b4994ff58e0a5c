"""Answers requests that cannot be served: with a page in the visitor's language, or in JSON as the API does.

Reads neither the database nor the session, since these may be what has failed; so nothing here runs the context
processors of templates.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.exceptions import RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext_lazy as _

from chat.api.responses import failure

logger = logging.getLogger(__name__)

TITLES = {
    400: _("This could not be understood"),
    403: _("This is not allowed"),
    404: _("Not found"),
    413: _("Too large"),
    500: _("Something went wrong"),
}

TEXTS = {
    400: _("The request was incomplete, or not for this site. Load the page again and repeat what you did."),
    403: _("Your account may not see or do this."),
    404: _("There is no such page, or it is somebody else’s."),
    413: _("This is more than the site takes at once."),
    500: _("The site could not answer. Please try again in a moment."),
}

CODES = {400: "invalid_request", 403: "forbidden", 404: "not_found", 413: "too_large", 500: "error"}
"""The codes of the API for the same."""

STALE = _("This page is out of date")
STALE_TEXT = _(
    "You signed in or out after it was loaded, or your browser keeps no cookies. Load it again and repeat what you did."
)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Answer what cannot be read, and what Django refuses for its size."""
    too_large = isinstance(exception, (RequestDataTooBig, TooManyFieldsSent, TooManyFilesSent))
    return _answer(request, 413 if too_large else 400)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 403)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 404)


def csrf(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Answer a form whose token is not the browser's, with a way back to the page that it was on."""
    came_from = request.headers.get("Referer", "")
    known = url_has_allowed_host_and_scheme(came_from, {request.get_host()}, require_https=request.is_secure())
    return _answer(request, 403, STALE, STALE_TEXT, came_from if known else "")


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer after an exception that nobody expected, even if pages cannot be drawn at all."""
    try:
        return _answer(request, 500)
    except Exception:
        logger.exception("The page that says so could not be drawn either")
        return HttpResponse(f"{TITLES[500]}. {TEXTS[500]}\n", content_type="text/plain; charset=utf-8", status=500)


def _answer(request: HttpRequest, status: int, title: Any = "", text: Any = "", again: str = "") -> HttpResponse:
    title, text = title or TITLES[status], text or TEXTS[status]
    if request.path_info.startswith("/api/") or not request.accepts("text/html"):
        with translation.override("en"):
            return failure(CODES[status], status, str(text))
    with translation.override(translation.get_language_from_request(request)):
        shown = {"request": request, "title": title, "text": text, "again": again}
        return HttpResponse(render_to_string("chat/failure.html", shown), status=status)
