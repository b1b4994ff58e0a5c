"""Chooses the next token of each row, by the parameters and the random numbers of the row's own request.

It is vectorised over rows, and yet no row changes what another gets, not by a bit: one generator per request, one
random number per token, and how a row is computed depends on that row only. The order is that of transformers: biases
and penalties, temperature, top_k, top_p, min_p. The module knows token ids only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from llm.engine.penalties import TokenTable, adjusted
from llm.sampling import DEFAULTS, SamplingParams

BLOCK = 64
"""Tokens of a block. The largest of a vocabulary is the largest of each block, vectorised, then of the few blocks."""
CANDIDATES = 64
"""How many of the most likely tokens are looked at first; sorting a whole vocabulary costs far more."""
GREEDY_BELOW = 1e-4
"""A lower temperature leaves nothing to chance, and dividing by it would leave the range of numbers."""


class RowSampling:
    """One request's parameters, random numbers, and the tokens it has seen."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], max_new_tokens: int) -> None:
        params = params.over(DEFAULTS)
        self.temperature = params.temperature or 0.0
        self.top_k = params.top_k or 0
        self.top_p = 1.0 if params.top_p is None else params.top_p
        self.min_p = params.min_p or 0.0
        self.table = TokenTable(params, prompt, max_new_tokens)
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def filtered(self) -> bool:
        return bool(self.top_k) or self.top_p < 1 or self.min_p > 0

    def saw(self, token: int) -> None:
        """Note a token of the answer."""
        self.table.saw(token)

    def random(self) -> float:
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()


@torch.inference_mode()
def sample(logits: Tensor, rows: Sequence[RowSampling]) -> list[int | None]:
    """Return a token for each row of `logits` `[rows, vocabulary]`; None where the logits are not finite."""
    logits = adjusted(logits.float(), [row.table for row in rows])
    best, found = most_likely(logits)
    usable = best.isfinite().tolist()
    tokens: list[int | None] = found.tolist()
    drawn = [i for i, row in enumerate(rows) if usable[i] and not row.greedy]
    if drawn:
        chosen = draw(rows_of(logits, drawn), [rows[i] for i in drawn])
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    return [token if fine else None for token, fine in zip(tokens, usable, strict=True)]


def draw(logits: Tensor, rows: Sequence[RowSampling]) -> list[int]:
    """Return one token of each row's distribution, as far as its filters leave it."""
    device = logits.device
    scaled = logits / torch.tensor([row.temperature for row in rows], device=device)[:, None]
    shares = scaled.softmax(-1)
    chances = torch.tensor([row.random() for row in rows], device=device, dtype=torch.float64)
    tokens = torch.empty(len(rows), dtype=torch.long, device=device)
    whole = [i for i, row in enumerate(rows) if not row.filtered]
    if whole:
        tokens[whole] = pick_of_all(rows_of(shares, whole), chances[whole])
    left, count = [i for i, row in enumerate(rows) if row.filtered], CANDIDATES
    while left:
        count = min(count, shares.shape[-1])
        picked, enough = draw_filtered(rows_of(shares, left), chances[left], [rows[i] for i in left], count)
        tokens[left] = picked
        left = [i for i, done in zip(left, enough.tolist(), strict=True) if not done]
        count *= 8
    return [int(token) for token in tokens.tolist()]


def draw_filtered(shares: Tensor, chances: Tensor, rows: Sequence[RowSampling], count: int) -> tuple[Tensor, Tensor]:
    """Return a token of each row from its `count` most likely ones, and whether these were enough to know."""
    device, vocabulary = shares.device, shares.shape[-1]
    top_k = torch.tensor([min(row.top_k or vocabulary, vocabulary) for row in rows], device=device)
    top_p = torch.tensor([row.top_p for row in rows], device=device, dtype=torch.float64)
    min_p = torch.tensor([row.min_p for row in rows], device=device)
    values, tokens = largest(shares, count)
    sums = values.cumsum(-1, dtype=torch.float64)
    # top_p is a share of what top_k has left
    left_by_k = sums.gather(-1, (top_k - 1).clamp(max=count - 1)[:, None])[:, 0].where(top_k < vocabulary, 1.0)
    kept = torch.arange(count, device=device) < top_k[:, None]
    kept &= sums - values < (top_p * left_by_k)[:, None]
    kept &= values >= min_p[:, None] * values[:, :1]
    enough = (top_k <= count) | ((top_k == vocabulary) & ~kept[:, -1])
    index = pick(values.masked_fill(~kept, 0.0), chances)
    return tokens.gather(-1, index[:, None])[:, 0], enough


def pick(shares: Tensor, chances: Tensor) -> Tensor:
    """Return the index at which the running sum of a row passes its random number (0 to 1) times the row's sum."""
    sums = shares.cumsum(-1, dtype=torch.float64)
    return passed(sums, chances * sums[:, -1])


def pick_of_all(shares: Tensor, chances: Tensor) -> Tensor:
    """Pick as `pick` does, from a whole vocabulary: first the block, then the token in it."""
    blocks = in_blocks(shares, 0.0)
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    goals = chances * sums[:, -1]
    block = passed(sums, goals)[:, None]
    goals -= torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)[:, 0]
    inside = blocks[torch.arange(len(blocks), device=blocks.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    return block[:, 0] * BLOCK + passed(inside, goals)


def passed(sums: Tensor, goals: Tensor) -> Tensor:
    """Return each row's first index at which `sums` exceeds the goal, which rounding may have put a little too high."""
    ends = sums[:, -1]
    goals = torch.minimum(goals, torch.nextafter(ends, torch.zeros_like(ends)))
    return torch.searchsorted(sums, goals[:, None], right=True)[:, 0]


def most_likely(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest logit of each row (NaN if it has one) and its token, the first of equals."""
    blocks = in_blocks(logits)
    block = blocks.amax(-1).argmax(-1)
    values, index = blocks[torch.arange(len(block), device=block.device), block].max(-1)
    return values, block * BLOCK + index


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return what `topk` does: the values lie in the `count` blocks with the largest maxima."""
    blocks = in_blocks(values)
    if count * 4 > blocks.shape[1]:
        found = values.topk(count)
        return found.values, found.indices
    where = blocks.amax(-1).topk(count).indices
    rows = torch.arange(len(blocks), device=blocks.device)[:, None]
    found = blocks[rows, where].flatten(1).topk(count)
    tokens = where.gather(1, found.indices // BLOCK) * BLOCK + found.indices % BLOCK
    return found.values, tokens


def rows_of(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Return `values[rows]`, without a copy if those are all rows."""
    return values if len(rows) == len(values) else values[list(rows)]


def in_blocks(values: Tensor, filling: float = float("-inf")) -> Tensor:
    """Return `[rows, vocabulary]` as `[rows, blocks, BLOCK]`, filled up with `filling`."""
    missing = -values.shape[-1] % BLOCK
    padded = F.pad(values, (0, missing), value=filling) if missing else values
    return padded.reshape(len(values), -1, BLOCK)
