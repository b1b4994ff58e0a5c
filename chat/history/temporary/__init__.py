"""Keeps temporary chats in sessions of their own: a Store (see `chat.history.contract`).

`chats` are the values that `sessions` keeps, `lifetime` says for how long; `acceptance`, `answers`, `reading` and
`edits` do with them what their namesakes in `chat.history.database` do with rows. Knows no tables but those of
sessions, generations and visitors. Start at `chats`.
"""

from chat.history.temporary.acceptance import accept, accepted
from chat.history.temporary.edits import change, delete
from chat.history.temporary.reading import answer, branch, holds, owns, page

__all__ = ["accept", "accepted", "answer", "branch", "change", "delete", "holds", "owns", "page"]
