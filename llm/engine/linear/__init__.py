"""Chooses how the linear layers of a step program are computed: in the fastest way whose error is small enough.

`layer` says what a linear layer and a product are, `products` has the ways to compute one (`int8` those of 8-bit
numbers), `timing` measures their time, `calibration` their error, and `quantize` chooses. Nothing here knows requests
or a step. A reader starts in `quantize`.

What helped (SmolLM2-135M, two cores with AVX-512 VNNI and bf16; milliseconds of a step):

- Weights prepacked for oneDNN: a step in float32 takes 15 / 30 / 47 for 1 / 16 / 32 rows, 41 / 92 / 125 without. A
  product in bfloat16 takes two thirds of that, less than one of 8-bit numbers that are rounded twice.
- Products timed in the order of a step: alone, the cache swept in between, each takes 200 microseconds longer, and
  plain float32 seemed the best for one of the shapes.

What did not help (microseconds of a call):

- 8-bit weights alone, by `_weight_int8pack_mm` (3072 x 576, 1 / 16 / 32 rows): 62 / 229 / 430 with rows in bfloat16,
  596 / 9,996 / 20,131 in float32; prepacked bfloat16 takes 68 / 141 / 209, rounded rows 53 / 97 / 141. MKL's prepacked
  weights take as long as plain ones from 16 rows on.
- The largest number of a row by `vector_norm`: 30 for sixteen rows, 4.7 by `abs` and `amax`; 120 times a step.
"""
