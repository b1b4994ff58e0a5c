"""Runs `llm.benchmark` with the site's settings (`manage.py benchmark`)."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm.conf import get_settings
from llm.errors import LLMError


class Command(BaseCommand):
    help = "Measure the engine on this machine, or a server: tokens a second, time to first token, gaps, memory."

    def add_arguments(self, parser: CommandParser) -> None:
        from llm.benchmark import options

        options.add_arguments(parser)

    def handle(self, **given: Any) -> None:
        from llm.benchmark import options, plan  # with torch, which other commands do without

        try:
            plan.run(get_settings(), options.of(given))
        except LLMError as error:
            raise CommandError(str(error)) from error
