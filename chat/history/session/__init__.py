"""Keeps temporary chats in sessions of their own: a Store (see `chat.history.contract`).

`chats` are the values that `storage` keeps in a session; `acceptance`, `answers`, `reading` and `edits` do with them
what their namesakes in `chat.history.database` do with rows. Knows no tables but those of generations and sessions.
Start at `chats`; what ends a temporary chat is in `storage`.
"""

from chat.history.session.acceptance import accept, accepted
from chat.history.session.edits import change, delete
from chat.history.session.reading import answer, branch, holds, owns, page

__all__ = ["accept", "accepted", "answer", "branch", "change", "delete", "holds", "owns", "page"]
