"""Batches one causal LM of transformers continuously, on torch. It knows token ids; of text, only its thread does.

A step computes one token for each sequence in decode and a chunk of the prompts in prefill, packed into a single
forward of the model without padding; sequences join and leave at any step. Read `step` first.

    thread        the engine's thread: requests in, text out
    step          Engine.step() = schedule, forward, sample, emit
    scheduler     the batch of the next step
    pace          how many tokens of prompts that is, by time; warmup measures it
    sequence      one request, as token ids
    prefixes      what is kept of finished answers for the next turn
    kvcache       keys and values of all sequences; layout: their shapes, blocks: their memory
    model_runner  the forward of a packed step, by the model's own modules
    sampler       the next token of each row; penalties: biases and penalties on single tokens, before that
    verify        asks once, at load, whether a model is computed right this way
    alone         the slower engine, for models that must not be batched
    attention/    the attention function the model calls, over the packed tokens
    linear/       the ways to compute a linear layer, and which is chosen
    program/      the forward of a packed step, by one straight-line function

No thread but the engine's has OpenMP helpers (`llm.backends.computing`): with SmolLM2-135M on two cores a step of 16
rows takes 20 instead of 33 milliseconds, of one row 11 instead of 19. With more helpers than cores none waits awake for
the next product. The packages tell what else helped, and what did not.
"""

import os

KEPT_KERNELS = "128"
"""Products that oneDNN, and torch's layer above it, keep prepared. They prepare one for each new shape and would keep
1,024 each: a quarter of a GiB after a thousand requests of any length. Read when the first product is computed."""

for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(name, KEPT_KERNELS)
