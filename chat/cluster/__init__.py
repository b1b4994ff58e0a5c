"""Several web processes that are one site: each shows and stops turns of the others, and ends those of a dead one.

`cluster` connects this process with the others over the `bus`, in the words of `messages`: the `follower` watches turns
there, the `publisher` sends them turns from here. The `heartbeat` needs the database alone. Knows no sockets and no
rights. Start at `cluster`.
"""
