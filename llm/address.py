"""Where the llm service of this site listens."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from llm.conf import Settings

LONGEST = 100
"""Bytes a unix socket's path may have: 108 on Linux, 104 on macOS, one of them the final NUL."""


def socket_path(settings: Settings) -> Path:
    """`var/llm.sock`, or a short path for this user and this `var` where that is too long for a socket."""
    path = settings.var_path / "llm.sock"
    if len(os.fsencode(path)) <= LONGEST:
        return path
    digest = hashlib.sha256(os.fsencode(settings.var_path)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"chatstream-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder / "llm.sock"
