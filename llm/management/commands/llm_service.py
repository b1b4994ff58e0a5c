"""Run an llm service that stays, for web processes that have its address in LLM_SERVICE."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from llm.conf import get_settings
from llm.errors import ConfigurationError
from llm.service import address, server


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--listen", required=True, metavar="ADDRESS", help="tcp://host:port or unix:/path")

    def handle(self, *args: Any, listen: str, **options: Any) -> None:
        settings = get_settings()
        try:
            where = address.parse(listen)
            if where.path is None and not settings.service_token:
                raise ConfigurationError(f"--listen {listen}: TCP needs LLM_SERVICE_TOKEN, the same for all clients")
            server.run(settings, where, lambda: print(f"The llm service listens at {where}", flush=True), stays=True)
        except (ConfigurationError, OSError) as error:
            self.stderr.write(f"Cannot start: {error}")
            sys.exit(os.EX_CONFIG)
