"""Measures what a model computes on a short text of several kinds, to judge whatever computes it less exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from llm.engine.attention import packed
from llm.engine.kvcache import Kept, KVCache, Segment
from llm.engine.layout import Decode
from llm.engine.linear.layer import Choose, Linear, Product, plain
from llm.engine.model_runner import Forward


class Quantizable(Forward, Protocol):
    """A forward whose linear layers can be computed by other products: `engine.program.program.Program` is one."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """All numbers of the model, by their names."""

    @property
    def linears(self) -> tuple[Linear, ...]:
        """The products of a step, in the order in which it comes to them."""

    def rebound(self, choose: Choose) -> Self:
        """Return the same forward with other products."""

    def keeping(self, dtype: torch.dtype, decode: Decode) -> Self:
        """Return the same forward with keys and values in such numbers, read in decode in such ways."""


TEXT = """Alan Turing was a British mathematician. In 1936 he described a machine that can compute whatever can be \
computed, and nine years later he drew up plans for one.

```python
def primes(n):
    sieve = [True] * n
    return [i for i in range(2, n) if sieve[i] and not any(i % j == 0 for j in range(2, i))]
```

| tea | price |
|---|---|
| green | 3.20 |

Question: I had 17 apples and ate 5. How many are left?
Answer: 17 - 5 = 12, so there are 12 apples left. Is there anything else you would like to know?

東京は日本の首都です。 La tour est plus haute que la maison, n'est-ce pas? - "Perhaps," she said, "but I'd rather walk."
1. Boil the water. 2. Add the leaves. 3. Wait four minutes."""

TOKENS = 512
"""The most tokens of the text that are used."""


def recorded(program: Quantizable, tokens: Sequence[int]) -> tuple[dict[tuple[str, ...], Tensor], Tensor]:
    """Return each linear layer's input `[tokens, in]`, by the layer's names, and the logits, all in float32."""
    found: dict[tuple[str, ...], Tensor] = {}

    def recording(linear: Linear) -> Product:
        product = plain(linear)

        def noted(x: Tensor) -> Tensor:
            found[linear.names] = x.detach().reshape(-1, x.shape[-1]).clone()
            return product(x)

        return noted

    exact = logits(program.rebound(recording), tokens)
    return found, exact


@torch.inference_mode()
def logits(forward: Forward, tokens: Sequence[int]) -> Tensor:
    """Return the logits of all tokens, `[tokens, vocabulary]`, in float32."""
    size = len(tokens)
    pack = packed.Pack([packed.Chunk(Segment(forward.layout, size), 0, size)])
    return forward(tokens, range(size), range(size), pack).float()


@torch.inference_mode()
def decoded(forward: Forward, tokens: Sequence[int], positions: Sequence[int]) -> Tensor:
    """Return logits at some positions, `[positions, vocabulary]`, each by a row in decode behind its past."""
    size = len(tokens)
    segment = Segment(forward.layout, size)
    pack = packed.Pack([packed.Chunk(segment, 0, size)])
    forward(tokens, range(size), [0], pack)
    cache = KVCache(forward.layout, size * len(positions))
    slots = {cache.open(at + 1, Kept(at, segment.keys, segment.values), at): at for at in positions}
    for slot in slots:
        cache.settle(slot)
    order = [slots[slot] for pool in cache.pools for slot in pool.slots]
    rows = packed.Pack([packed.PoolRows(pool) for pool in cache.pools])
    found = forward([tokens[at] for at in order], order, range(len(order)), rows).float()
    return found[[order.index(at) for at in positions]]


def divergence(found: Tensor, exact: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence from the exact next-token distributions, in nats.

    The logarithm of the perplexity grows by this much on a text that the exact model wrote.
    """
    exact = exact.log_softmax(-1)
    return (exact.exp() * (exact - found.log_softmax(-1))).sum(-1).mean().item()
