"""Brings the catalogues of translations up to date with the sources, and compiles them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Bring the catalogues in chat/locale up to date with the sentences in the sources, and compile them."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from chat.management import catalogs

        for language in catalogs.languages():
            for domain in catalogs.DOMAINS:
                missing = catalogs.update(language, domain)
                catalogs.compile(language, domain)
                self.stdout.write(f"{language}/{domain}: {missing} to translate")
