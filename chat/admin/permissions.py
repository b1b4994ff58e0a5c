"""Defines what the pages of the admin allow."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


class ReadOnly:
    """Shows rows as they are, or deletes them."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
