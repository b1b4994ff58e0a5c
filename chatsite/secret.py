"""Makes the secret key of an installation that was given none, once, in a file that only its owner reads."""

import contextlib
import os
import tempfile
from pathlib import Path

from django.core.management.utils import get_random_secret_key


def secret_key(path: Path) -> str:
    """Return the key in `path`. Processes that start together on an empty folder all get the same one."""
    if not path.exists():
        _publish(get_random_secret_key(), path)
    return path.read_text().strip()


def _publish(key: str, path: Path) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".secret-")  # mode 600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # whole or not at all, and the first one wins
    finally:
        os.unlink(temporary)
