"""The WebSocket's side of the wire: what is said over `/ws/chat/`, and how it gets out.

`frames` defines every frame, `codec` reads and writes them as text, `writer` sends them without letting a slow reader
fill the memory, `ranges` tells the page what settings may be. Knows no conversations and no turns. Start at `frames`.
"""
