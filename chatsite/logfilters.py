"""Filters of what goes into the log."""

from __future__ import annotations

import logging


def refusals_in_a_line(record: logging.LogRecord) -> bool:
    """Drop the traceback of a refused request: it says nothing about our code, and anybody can have it written."""
    if 400 <= getattr(record, "status_code", 0) < 500:
        record.exc_info = None
    return True
