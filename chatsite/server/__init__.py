"""The server of the site: daphne's, with bounds on all that a peer may send, a start and an end in order.

`server` runs it, `requests` is its end of a connection over HTTP, `sockets` that of a WebSocket, `refusals` has the
pages it answers with itself. Knows connections and processes; what is served is `chatsite.asgi`. Start at `server`.
"""
