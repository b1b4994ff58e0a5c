"""Delete what is no longer needed. The site does this by itself, once a minute; here with all sessions looked at."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from chat.retention import purge


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        gone = purge(all_sessions=True)
        self.stdout.write(
            f"Gone: {gone.conversations} deleted conversations, {gone.expired_sessions} sessions that ended, "
            f"{gone.unused_sessions} sessions without a message, {gone.visitors} visitors without anything."
        )
