"""Tells temporary conversations, and the messages of one, from kept ones by their ids."""

from __future__ import annotations

from uuid import UUID, uuid4

VERSION = 8
"""The version of the ids of temporary chats and their messages (RFC 9562: own use); all others have version 4."""


def new_temporary_id() -> UUID:
    return UUID(int=uuid4().int & ~(0xF << 76) | VERSION << 76)


def is_temporary(id: UUID) -> bool:
    """Tell whether a temporary chat, or a message of one, has or had this id."""
    return id.version == VERSION
