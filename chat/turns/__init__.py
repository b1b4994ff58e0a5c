"""Turns: questions on their way to an answer, run by this process whether or not anybody watches.

`registry` makes a turn of a request and finds it again, `turn` runs it, `checkpoints` stores its text meanwhile, and
`unwatched` gives up its place in the queue. Knows no sockets, no frames and no SQL. Start at `registry`.
"""
