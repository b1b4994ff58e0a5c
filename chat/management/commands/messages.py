"""Brings the catalogues of translations up to date with the sources, and compiles them."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Bring the catalogues in chat/locale up to date with the sentences in the sources, and compile them."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from chat.management import translations

        for language in translations.languages():
            for domain in translations.DOMAINS:
                missing = translations.update(language, domain)
                translations.compile(language, domain)
                self.stdout.write(f"{language}/{domain}: {missing} to translate")
