"""Conversations: what was said, kept in tables or, if it is temporary, in a session.

`history` decides where a conversation is kept, the packages `database` and `temporary` keep it, by the `contract` and
in the `values` that both share; `tree`, `prompt`, `titles` and `owners` are functions on these. Knows no sockets, no
turns and no language model. Start at `history`.
"""
