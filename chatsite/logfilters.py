"""Filters of what goes into the log."""

from __future__ import annotations

import logging


def without_traceback(record: logging.LogRecord) -> bool:
    """Drop the traceback of a record that says nothing about our code: its line is enough."""
    record.exc_info = None
    return True
