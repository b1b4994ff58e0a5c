"""The chat in Django's admin, for the operator: `conversations` with their messages, `generations`, and `accounts`.

Texts of temporary chats are in no table, so the admin knows their figures only. Start at `conversations`.
"""

from chat.admin import accounts, conversations, generations  # noqa: F401 they register themselves
