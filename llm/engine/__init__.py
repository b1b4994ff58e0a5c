"""Continuous batching of one causal LM of transformers, on torch.

A step computes one token for each sequence in decode and a chunk of the prompts in prefill, packed into a single
forward of the model without padding; sequences join and leave at any step. Read `core` first: it says what a step is.

    thread      the engine's thread: requests in, text out
    core        step() = schedule, forward, sample, emit
    scheduler   what goes into the next step
    pace        how many tokens of prompts that is, by time; warmup measures it
    prefixes    what is kept of finished answers for the next turn
    sequence    one request, as token ids
    kvcache     keys and values of all sequences
    attention   the attention function the model calls, over the packed tokens; kernels: its numbers, in several ways
    model       the forward of a packed step, by the model's own modules
    programs    the step program at load: kept or made, checked, or left out
    program     the forward of a packed step, by one straight-line function; `linear` is what it multiplies with
    capture     the model as a graph, its attention left open
    passes      that graph with fewer and larger calls, a file for each kind of pattern; operations: what they put in,
                graphs: how they look and change
    emission    the graph as Python text
    products    the ways to compute a linear layer; int8: those of 8-bit numbers; timing: how long each takes here
    quantize    which way for which layer, and what keys and values are kept in, by what calibration says of the error
    sampler     the next token of each row
    penalties   biases and penalties on single tokens, before that
    alone       the slower engine, for what must not be batched
    verify      is a model computed right this way? asked once, at load

What helped all of it (SmolLM2-135M, two cores with AVX-512 VNNI and bf16; milliseconds of a step):

- No thread but the engine's has OpenMP helpers (`llm.computing`): 20 instead of 33 with 16 rows, 11 instead of 19 with
  one. With more helpers than cores none waits awake for the next product.
- Weights prepacked for oneDNN: a step in float32 takes 15 / 30 / 47 for 1 / 16 / 32 rows, 41 / 92 / 125 without; a
  product in bfloat16 two thirds of that, less than one of 8-bit numbers that are rounded twice.
- Products timed in the order of a step: alone, the cache swept in between, each takes 200 microseconds longer, and
  plain float32 seemed the best for one of the shapes.
- Keys and values in bfloat16: 33 instead of 44 for 16 rows of 600 tokens, at the speed of the memory. For few queries
  the keys come first in the product (`K q`, not `q K`: 6.5 instead of 21.7 for 30 layers); small products are widened;
  and the length is a multiple of 32, since oneDNN prepares each new shape for a millisecond.
- Scores left in the keys' numbers until they are probabilities, brought into the order of the softmax by one copy, and
  new keys and values written as whole vectors, by `index_copy_`: 137 instead of 181 microseconds a layer for 16 rows of
  64 tokens, 235 instead of 306 for one of 4,000; the numbers are the same, bit by bit.
- Rows in decode by `scaled_dot_product_attention`, the heads that share a key head as its queries: quicker than two
  products and a softmax for a few hundred tokens in all (one row of 128: 35 instead of 54 microseconds a layer), for
  more not on that machine, but on one with AMX, which oneDNN's products of parts of larger tensors copy
  there first. Keys and values in bfloat16, 16 rows of 64 tokens 3.2 instead of 6.6, of 640 29 instead of 33, one of
  4,000 14 instead of 18, or 12 with each head by itself. So both are timed at load. (Tensors that end where the longest
  row does would make the products of long rows the quickest, 22, but each length would need its own.)

What helped the step program (SmolLM2-135M, 30 layers; microseconds of one call, one thread of a CPU with AVX-512):

- 1,553 calls of the export become 588 lines (a rotation is three calls, a norm four). Without products and attention
  a step of one row takes 2 milliseconds, of sixteen rows 4.
- Methods of tensors instead of the operators that they are: 1.1 instead of 1.8 for a product, of a view 2.1.
- One rotation for queries and keys, by `roll`, with the signs in the sines: 3 calls instead of 12.
- Queries, keys and values by token, as the products make them: they need not be transposed to be stored.
- RMS norm as a quotient by `hypot`: 4.5 instead of 9.4 for one row, 7 instead of 12 for sixteen; `torch.rms_norm` is
  several kernels on a CPU.

What did not:

- RMS norm as a layer norm of (x, -x), whose mean is zero: 6 for one row, but twenty times as long for 192.
- Its mean square as a batched product of each row with itself: 7 for one row, 19 for sixteen.
- Scores, mask and scale as one `baddbmm`: no quicker than three calls.
- Keys that lie transposed in their rows: 16 instead of 7 to write them for sixteen rows, and their product with the
  queries takes 76 instead of 57 at 60 tokens, 680 instead of 560 at 600 (two threads). A layout by token first takes
  2,400 there.
- 8-bit weights alone, by `_weight_int8pack_mm` (3072 x 576, 1 / 16 / 32 rows): 62 / 229 / 430 with rows in bfloat16,
  596 / 9,996 / 20,131 in float32; prepacked bfloat16 takes 68 / 141 / 209, rounded rows 53 / 97 / 141. MKL's prepacked
  weights: as long as plain ones from 16 rows on.
- A new turn behind 2,000 tokens by the flash kernel, each piece alone and weighted by its share: 730 a layer in
  bfloat16, 680 in float32, cut into 4 parts 757; as two products and a softmax 379.
- Long rows cut into parts for more threads: 93 instead of 88 for the scores of 4,000 tokens: that is the memory's
  speed.
- Pages of 2 MiB for keys and values: 21.1 instead of 22.3 milliseconds for 30 layers, and rows that bring their
  neighbours' memory with them.
- Writing keys and values at once: 5.5 instead of twice 4.5, and a `cat` before it.
- The largest number of a row by `vector_norm`: 30 for sixteen rows, 4.7 by `abs` and `amax`; 120 times a step.
"""

import os

KEPT_KERNELS = "128"
"""oneDNN, and torch's layer above it, prepare a product for each new shape, and would keep 1,024 each: a quarter
of a GiB after a thousand requests of any length. Read when the first product is computed."""

for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(name, KEPT_KERNELS)
