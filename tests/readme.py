"""What the README says, in a form that tests can compare with the code."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def settings_table() -> dict[str, str]:
    """Name -> default, from the rows `| `NAME` | `default` | meaning |`; an empty default is an empty string."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", README.read_text(), re.MULTILINE)
    return dict(rows)
