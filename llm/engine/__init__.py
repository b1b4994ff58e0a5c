"""Continuous batching of one causal LM of transformers, on torch.

A step computes one token for each sequence in decode and a chunk of the prompts in prefill, packed into a single
forward of the model without padding; sequences join and leave at any step. Read `core` first: it says what a step is.

    thread      the engine's thread: requests in, text out
    core        step() = schedule, forward, sample, emit
    scheduler   what goes into the next step
    sequence    one request, as token ids
    kvcache     keys and values of all sequences
    attention   the attention function the model calls, over the packed tokens
    model       the forward of a packed step, by the model's own modules
    sampler     the next token of each row
    verify      is a model computed right this way? asked once, at load
"""
