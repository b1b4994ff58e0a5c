"""Checks the settings of the site as a whole, in Django's system check framework.

chatsite.E001  several web processes sign with a key that only one `var` has
chatsite.W001  REDIS_URL without PostgreSQL: there will be one web process all the same
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register


@register()
def check_processes(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    """Check that several web processes have what they need, if there may be several."""
    if settings.SEVERAL_PROCESSES:
        if os.environ.get("SECRET_KEY"):
            return []
        problem = "With DATABASE_URL and REDIS_URL there may be several web processes: they need one key to sign with."
        return [Error(problem, hint="Set SECRET_KEY, the same for all of them.", id="chatsite.E001")]
    if settings.REDIS_URL:
        problem = "REDIS_URL is set, but the database is SQLite: there can be one web process only."
        return [Warning(problem, hint="Set DATABASE_URL to a PostgreSQL for several.", id="chatsite.W001")]
    return []
