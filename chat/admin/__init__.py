"""The chat in Django's admin, for the operator: `conversations` with their messages, and `generations`.

Texts of temporary chats are in no table, so the admin knows their figures only. Start at `conversations`.
"""

from chat.admin import conversations, generations  # noqa: F401 they register themselves
