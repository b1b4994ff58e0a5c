"""What generations tell, and the sockets of this process that follow them.

A `transcript` holds the events of one generation once, a `feed` what is due to one socket, the `hub` connects them.
Knows no database, no other process and no rights. Start at `transcript`.
"""
