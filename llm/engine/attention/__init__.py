"""Lets the packed tokens of a step attend to keys and values, sequence by sequence.

`packed` is the attention function that the model calls, and cuts a step into its parts; `kernels` has the computation,
in several ways, and knows no sequences. Nothing here knows a model by its name. A reader starts in `packed`.

What helped (SmolLM2-135M, two cores with AVX-512 VNNI and bf16; milliseconds of a step unless said otherwise):

- Keys and values in bfloat16: 33 instead of 44 for 16 rows of 600 tokens, at the speed of the memory. For few queries
  the keys come first in the product (`K q`, not `q K`: 6.5 instead of 21.7 for 30 layers); small products are widened;
  and the length is a multiple of 32, since oneDNN prepares each new shape for a millisecond.
- Scores left in the keys' numbers until they are probabilities, brought into the order of the softmax by one copy, and
  new keys and values written as whole vectors, by `index_copy_`: 137 instead of 181 microseconds a layer for 16 rows of
  64 tokens, 235 instead of 306 for one of 4,000; the numbers are the same, bit by bit.
- Rows in decode by `scaled_dot_product_attention`, the heads that share a key head as its queries: quicker than two
  products and a softmax for a few hundred tokens in all (one row of 128: 35 instead of 54 microseconds a layer). For
  more tokens it is not quicker on that machine, but it is on one with AMX, where oneDNN's products of parts of larger
  tensors copy first. There, with keys and values in bfloat16, 16 rows of 64 tokens take 3.2 instead of 6.6, of 640
  tokens 29 instead of 33, one row of 4,000 takes 14 instead of 18, or 12 with each head by itself. So both are timed at
  load. (Tensors that end where the longest row does would make the products of long rows the quickest, 22, but each
  length would need its own.)

What did not help (microseconds of a call):

- Scores, mask and scale as one `baddbmm`: no quicker than three calls.
- Keys that lie transposed in their rows: 16 instead of 7 to write them for sixteen rows, and their product with the
  queries takes 76 instead of 57 at 60 tokens, 680 instead of 560 at 600 (two threads). A layout by token first takes
  2,400 there.
- A new turn behind 2,000 tokens by the flash kernel, each piece alone and weighted by its share: 730 a layer in
  bfloat16, 680 in float32, cut into 4 parts 757; as two products and a softmax 379.
- Long rows cut into parts for more threads: 93 instead of 88 for the scores of 4,000 tokens, the speed of the memory.
- Pages of 2 MiB for keys and values: 21.1 instead of 22.3 milliseconds for 30 layers, and rows that bring their
  neighbours' memory with them.
- Writing keys and values at once: 5.5 instead of twice 4.5, and a `cat` before it.
"""
