"""`manage.py benchmark`: `llm.benchmark` with the site's settings."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from llm.conf import get_settings
from llm.errors import ConfigurationError


class Command(BaseCommand):
    help = "Measure the engine on this machine: tokens a second, time to first token, cancel to free."

    def add_arguments(self, parser: CommandParser) -> None:
        from llm import benchmark  # with torch, which other commands do without

        benchmark.add_arguments(parser)

    def handle(self, *, chats: list[int], tokens: int, json: bool, **_: Any) -> None:
        from llm import benchmark

        try:
            benchmark.run(get_settings(), chats, tokens, json)
        except ConfigurationError as error:
            raise CommandError(str(error)) from error
