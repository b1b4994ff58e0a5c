"""Who a visitor is, where a request comes from, and how often one may do something.

`identity` ties a browser's session to a visitor, `addresses` reads the network address, `limiter` counts by either.
Knows no conversations but to hand them to an account. Start at `identity`.
"""
