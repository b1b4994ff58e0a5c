"""The site over HTTP, as JSON: what the page asks, and what operators ask.

`conversations` serves the page, `export` writes a conversation as a file, `operations` tells load and health;
`responses` is what they share. Knows no rows and no sockets. Start at `conversations`.
"""
