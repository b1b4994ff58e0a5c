"""Controls the load: decides who may generate, who waits and who is refused, and follows each request to its end.

The package knows one backend by its interface (`llm.backends.base`); it knows no sockets, no prompts and no tensors.
A reader starts in `controller`; `generation` is one request, `fairness` the order of the queue, `budget` the KV memory
and `waits` the forecast of waiting times.
"""
