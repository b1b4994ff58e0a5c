"""Keeps conversations in the tables of `chat.models`: a Store (see `chat.history.contract`).

`acceptance` stores what a turn begins with, `answers` what it writes; `reading` and `edits` serve the page. Knows
nothing of temporary chats. Start at `acceptance.accept`.
"""

from chat.history.database.acceptance import accept, accepted
from chat.history.database.edits import change, delete
from chat.history.database.reading import answer, branch, holds, owns, page

__all__ = ["accept", "accepted", "answer", "branch", "change", "delete", "holds", "owns", "page"]
