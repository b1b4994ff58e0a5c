"""Checks of Django's system check framework: each says before what would fail later, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured

from chat.conf import FIELDS, from_mapping

FRONT_END = ("vendor/markdown-it/markdown-it.esm.min.mjs", "vendor/katex/katex.min.js")


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """Check that every `CHAT_*` setting has its type and lies in its range."""
    try:
        from_mapping({name: getattr(settings, name) for name in FIELDS if hasattr(settings, name)})
    except ImproperlyConfigured as error:
        return [Error(str(error), hint="Correct it in the environment.", id="chat.E001")]
    return []


@register(Tags.staticfiles)
def check_front_end(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """Check that the page's front-end packages are installed."""
    if None in map(finders.find, FRONT_END):
        problem = "The page's front-end packages are not installed."
        return [Error(problem, hint="Run `make run`, or `npm ci` in the folder chat.", id="chat.E002")]
    return []
