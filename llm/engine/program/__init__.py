"""Makes the step program: a causal LM as one straight-line Python function, which computes a step in fewer calls.

`capture` makes a graph of the model, `passes` give it fewer and larger calls (`operations`: what they put in, `graphs`:
how they look and change), `emission` writes it out as Python, `program` binds the text to the model's numbers, and
`startup` keeps it from one start to the next and checks it. Nothing here knows requests. A reader starts in `startup`.

What helped (SmolLM2-135M, 30 layers; microseconds of one call, one thread of a CPU with AVX-512):

- 1,553 calls of the export become 588 lines (a rotation is three calls, a norm four). Without products and attention
  a step of one row takes 2 milliseconds, of sixteen rows 4.
- Methods of tensors instead of the operators that they are: 1.1 instead of 1.8 for a product, of a view 2.1.
- One rotation for queries and keys, by `roll`, with the signs in the sines: 3 calls instead of 12.
- Queries, keys and values by token, as the products make them: they need not be transposed to be stored.
- RMS norm as a quotient by `hypot`: 4.5 instead of 9.4 for one row, 7 instead of 12 for sixteen; `torch.rms_norm` is
  several kernels on a CPU.

What did not help:

- RMS norm as a layer norm of (x, -x), whose mean is zero: 6 for one row, but twenty times as long for 192.
- Its mean square as a batched product of each row with itself: 7 for one row, 19 for sixteen.
"""
