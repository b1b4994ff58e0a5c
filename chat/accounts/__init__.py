"""Accounts: the pages to sign up, in and out, and what keeps guessing and stale sessions out.

`views` serves the pages, `attempts` limits how often one may try, `revalidation` checks the sessions of open sockets.
Knows no conversations. Start at `views`.
"""
