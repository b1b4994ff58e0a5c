"""Says whose a request is by now. Runs inside transactions of its callers."""

from __future__ import annotations

from uuid import UUID

from chat.models import Visitor


def owner(visitor: UUID) -> UUID:
    """Return the visitor whose the requests of `visitor` are, whose row is made with the first one.

    A socket that was open when its browser signed in to an account stays that browser's for a moment: what it asks is
    the account's. The row is locked, so that no sign-in comes between this look at it and what is stored after it.
    """
    return locked(visitor).became_id or visitor


def locked(visitor: UUID) -> Visitor:
    """Return a visitor's row, made if there was none, so that nothing is stored for it while it changes hands."""
    row, _ = Visitor.objects.select_for_update(no_key=True).get_or_create(pk=visitor)
    return row
