"""Load control: who may generate, who waits, who is refused, and how each request is followed to its end.

It knows one backend by its interface (`llm.backends.base`); it knows no sockets, no prompts and no tensors. A reader
starts in `controller`; `generation` is one request, `fairness` the order of the queue, `budget` the KV memory and
`waits` the forecast of waiting times.
"""
