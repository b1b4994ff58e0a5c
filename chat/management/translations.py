"""Finds the sentences of templates, Python and scripts, and keeps the catalogues of their translations.

A tool for those who change sentences (`manage.py messages`) and for tests; a running site reads compiled catalogues
and needs neither this nor Babel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

APP = Path(__file__).resolve().parent.parent
LOCALE = APP / "locale"
DOMAINS = ("django", "djangojs")
"""Templates and Python; scripts."""

KEYWORDS: dict[str, Any] = {
    "django": {"_": None, "gettext": None, "gettext_lazy": None, "ngettext": (1, 2), "pgettext": ((1, "c"), 2)},
    "djangojs": {"t": None},
}

HEADER = """\
# The sentences of the chat in another language. `manage.py messages` brings them up to date with the sources.
msgid ""
msgstr ""
"Language: {language}\\n"
"Plural-Forms: {plural}\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
"""All that Django needs to know of a catalogue; Babel's own has dates and names, which change with every run."""


def sources(domain: str) -> Catalog:
    """Return all sentences as they stand in the sources now."""
    catalog = Catalog(charset="utf-8")
    for path, method, text in _files(domain):
        for line, found, _comments, context in extract(method, io.BytesIO(text.encode()), KEYWORDS[domain]):
            catalog.add(found, locations=[(path.relative_to(APP.parent).as_posix(), line)], context=context)
    return catalog


def languages() -> list[str]:
    """Return the languages that have a catalogue, besides English."""
    return sorted(path.name for path in LOCALE.iterdir() if path.is_dir())


def read(language: str, domain: str) -> Catalog:
    with po(language, domain).open("rb") as file:
        return read_po(file, locale=language, domain=domain)


def update(language: str, domain: str) -> int:
    """Bring a catalogue up to date with the sources; return how many of its sentences have no translation yet."""
    path = po(language, domain)
    catalog = read(language, domain) if path.exists() else Catalog(locale=language, domain=domain)
    catalog.update(sources(domain), no_fuzzy_matching=True)
    catalog.obsolete.clear()
    with path.open("wb") as file:
        file.write(HEADER.format(language=language, plural=catalog.plural_forms).encode())
        write_po(file, catalog, width=120, sort_output=True, include_lineno=False, omit_header=True)
    return sum(not message.string for message in catalog if message.id)


def compile(language: str, domain: str) -> None:
    """Write a catalogue as a running site reads it."""
    with po(language, domain).with_suffix(".mo").open("wb") as file:
        write_mo(file, read(language, domain))


def po(language: str, domain: str) -> Path:
    return LOCALE / language / "LC_MESSAGES" / f"{domain}.po"


def _files(domain: str) -> Iterator[tuple[Path, str, str]]:
    """Yield each source: where it is, Babel's method for it, and its text in the language of that method."""
    if domain == "djangojs":
        for path in sorted((APP / "static" / "chat" / "js").rglob("*.js")):
            yield path, "javascript", path.read_text()
        return
    for path in sorted((APP / "templates").rglob("*.html")):
        code = templatize(path.read_text())
        yield path, "python", "\n".join(line.strip() for line in code.splitlines())  # its indentation means nothing
    packages = [APP, *(folder for folder in APP.iterdir() if (folder / "__init__.py").exists())]
    for path in sorted(path for folder in packages for path in folder.glob("*.py")):
        yield path, "python", path.read_text()
