"""Chooses the next token of each row, by the parameters and the random numbers of the row's own request.

Rows do not touch each other: one generator per request, one random number per token, so that a seed repeats an answer
whatever else is in the batch. Vectorised over rows. The order is that of transformers: repetition penalty,
temperature, top_k, top_p. Knows token ids only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from llm.sampling import DEFAULTS, SamplingParams

FIRST_CANDIDATES = 64
"""How many of the most likely tokens are looked at first for top_p; sorting a whole vocabulary costs far more."""


class RowSampling:
    """One request's parameters, random numbers, and the tokens it has seen."""

    def __init__(self, params: SamplingParams, prompt: Sequence[int], max_new_tokens: int) -> None:
        params = params.over(DEFAULTS)
        self.temperature = params.temperature or 0.0
        self.top_k = params.top_k or 0
        self.top_p = 1.0 if params.top_p is None else params.top_p
        self.penalty = params.repetition_penalty or 1.0
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)
        known = torch.tensor(sorted(set(prompt)), dtype=torch.long)
        self._tokens = torch.cat((known, torch.empty(max_new_tokens, dtype=torch.long)))
        self._count = len(known)

    @property
    def seen(self) -> Tensor:
        """Tokens of prompt and answer; one may be there twice."""
        return self._tokens[: self._count]

    def saw(self, token: int) -> None:
        self._tokens[self._count] = token
        self._count += 1

    def random(self) -> float:
        return torch.rand((), generator=self._generator, dtype=torch.float64).item()


@torch.inference_mode()
def sample(logits: Tensor, rows: Sequence[RowSampling]) -> list[int | None]:
    """A token for each row of `logits` `[rows, vocabulary]`; None where the logits are no numbers to choose by."""
    logits = logits.float()
    usable = logits.amax(-1).isfinite().tolist()
    logits = penalised(logits, rows)
    tokens: list[int | None] = logits.argmax(-1).tolist()
    drawn = [i for i, row in enumerate(rows) if usable[i] and row.temperature > 0]
    if drawn:
        chosen = draw(logits[drawn], [rows[i] for i in drawn])
        for i, token in zip(drawn, chosen, strict=True):
            tokens[i] = token
    return [token if fine else None for token, fine in zip(tokens, usable, strict=True)]


def penalised(logits: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """The repetition penalty makes seen tokens less likely: a negative logit is multiplied, not divided."""
    affected = [i for i, row in enumerate(rows) if row.penalty != 1]
    if not affected:
        return logits
    seen = [rows[i].seen for i in affected]
    lengths = torch.tensor([len(tokens) for tokens in seen])
    where = torch.repeat_interleave(torch.tensor(affected), lengths).to(logits.device)
    penalty = torch.repeat_interleave(torch.tensor([rows[i].penalty for i in affected]), lengths).to(logits.device)
    tokens = torch.cat(seen).to(logits.device)
    scores = logits[where, tokens]
    logits = logits.clone()
    logits[where, tokens] = torch.where(scores < 0, scores * penalty, scores / penalty)
    return logits


def draw(logits: Tensor, rows: Sequence[RowSampling]) -> list[int]:
    """One token of each row's distribution, cut by top_k and top_p."""
    device = logits.device
    logits = logits / torch.tensor([row.temperature for row in rows], device=device)[:, None]
    chances = torch.tensor([row.random() for row in rows], device=device, dtype=torch.float64)
    whole = [i for i, row in enumerate(rows) if not row.top_k and row.top_p >= 1]
    cut = [i for i, row in enumerate(rows) if row.top_k or row.top_p < 1]
    tokens = [0] * len(rows)
    for part, pick in ((whole, draw_from_all), (cut, draw_from_most_likely)):
        if part:
            picked = pick(logits[part], chances[part], [rows[i] for i in part])
            for i, token in zip(part, picked.tolist(), strict=True):
                tokens[i] = token
    return tokens


def draw_from_all(logits: Tensor, chances: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    return pick(logits.softmax(-1), chances)


def draw_from_most_likely(logits: Tensor, chances: Tensor, rows: Sequence[RowSampling]) -> Tensor:
    """Looks at the most likely tokens only, and at more of them while top_p of some row needs more."""
    vocabulary = logits.shape[-1]
    top_k = torch.tensor([min(row.top_k or vocabulary, vocabulary) for row in rows], device=logits.device)[:, None]
    top_p = torch.tensor([row.top_p for row in rows], device=logits.device)[:, None]
    total = logits.logsumexp(-1, keepdim=True)
    count = min(max(FIRST_CANDIDATES, *(row.top_k for row in rows)), vocabulary)
    while True:
        values, tokens = logits.topk(count)
        position = torch.arange(count, device=logits.device)
        values = values.masked_fill(position >= top_k, float("-inf"))
        # top_p is a share of what top_k has left
        norm = torch.where(top_k < vocabulary, values.logsumexp(-1, keepdim=True), total)
        shares = (values - norm).exp()
        before = shares.cumsum(-1) - shares
        if count == vocabulary or bool(((top_k <= count) | (before[:, -1:] >= top_p)).all()):
            break
        count = min(count * 8, vocabulary)
    kept = shares.masked_fill(before >= top_p, 0.0)  # never the first, which has nothing before it
    return tokens.gather(-1, pick(kept, chances)[:, None])[:, 0]


def pick(shares: Tensor, chances: Tensor) -> Tensor:
    """The index at which the running sum of a row passes its random number (0 to 1) times the row's sum."""
    sums = shares.cumsum(-1, dtype=torch.float64)
    totals = sums[:, -1:]
    goals = torch.minimum(chances[:, None] * totals, torch.nextafter(totals, torch.zeros_like(totals)))
    return torch.searchsorted(sums, goals, right=True)[:, 0]
