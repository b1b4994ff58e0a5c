"""Puts the sentences of the scripts into the page, in its language."""

from __future__ import annotations

import functools
import gettext
from pathlib import Path

from django import template
from django.utils.html import json_script
from django.utils.safestring import SafeString
from django.utils.translation import get_language

register = template.Library()

LOCALE = Path(__file__).resolve().parent.parent / "locale"


@register.simple_tag
def catalog() -> SafeString:
    """Render `{% catalog %}`: a data element that `i18n.js` reads; a sentence that is not in it stays as it is."""
    return _catalog(get_language() or "en")


@functools.cache
def _catalog(language: str) -> SafeString:
    found = gettext.translation("djangojs", LOCALE, [language.replace("-", "_")], fallback=True)
    sentences = {key: text for key, text in vars(found).get("_catalog", {}).items() if key and isinstance(key, str)}
    return json_script(sentences, "catalog")
