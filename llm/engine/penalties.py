"""Changes the logits of single tokens: a request's biases, and its penalties for tokens that were said.

Each request keeps a small table of the tokens concerned, brought up to date with each token of its answer; a step
joins the tables of all its rows and changes those logits only, so that the cost does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from llm.sampling import SamplingParams

BIAS, FACTOR, OFFSET = range(3)


class TokenTable:
    """For each token concerned: a bias, then a factor (a positive logit is divided by it), then an offset.

    `params` has no None. Penalties for repetition hold for prompt and answer, those for presence and frequency for the
    answer, as in transformers and in vLLM.
    """

    def __init__(self, params: SamplingParams, prompt: Iterable[int], max_new_tokens: int) -> None:
        penalty = params.repetition_penalty or 1.0
        subtractive = params.repetition_penalty_method == "subtractive"
        self._factor = 1.0 if subtractive else penalty
        self._offset = penalty if subtractive else 0.0
        self._presence = params.presence_penalty or 0.0
        self._frequency = params.frequency_penalty or 0.0
        bias = params.logit_bias or {}
        repetition = subtractive or penalty != 1
        self._counts_answer = repetition or bool(self._presence or self._frequency)
        tokens = sorted({*bias, *(prompt if repetition else ())})
        room = len(tokens) + (max_new_tokens if self._counts_answer else 0)
        self._entry = {token: i for i, token in enumerate(tokens)}
        self._tokens = torch.tensor(tokens + [0] * (room - len(tokens)), dtype=torch.long)
        self._values = torch.tensor([[0.0], [1.0], [0.0]]).repeat(1, room)
        for token, value in bias.items():
            self._values[BIAS, self._entry[token]] = value
        if repetition:
            seen = torch.tensor([self._entry[token] for token in set(prompt)], dtype=torch.long)
            self._values[FACTOR, seen], self._values[OFFSET, seen] = self._factor, self._offset
        self._times: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._entry)

    @property
    def tokens(self) -> Tensor:
        return self._tokens[: len(self)]

    @property
    def values(self) -> Tensor:
        """Biases, factors and offsets, `[3, tokens]`: rows BIAS, FACTOR, OFFSET."""
        return self._values[:, : len(self)]

    def saw(self, token: int) -> None:
        """Note that the answer has a further token."""
        if not self._counts_answer:
            return
        entry = self._entry.setdefault(token, len(self))
        self._times[token] = times = self._times.get(token, 0) + 1
        self._tokens[entry] = token
        self._values[FACTOR, entry] = self._factor
        self._values[OFFSET, entry] = self._offset + self._presence + self._frequency * times


def adjusted(logits: Tensor, tables: Sequence[TokenTable]) -> Tensor:
    """Return `logits` `[rows, vocabulary]` changed by the table of each row; the argument stays as it is.

    Tokens for which there is no logit are left out: a model's head may be narrower than its embedding.
    """
    affected = [(row, table) for row, table in enumerate(tables) if len(table)]
    if not affected:
        return logits
    device = logits.device
    rows = torch.tensor([row for row, _ in affected])
    rows = rows.repeat_interleave(torch.tensor([len(table) for _, table in affected]))
    tokens = torch.cat([table.tokens for _, table in affected])
    values = torch.cat([table.values for _, table in affected], 1)
    if int(tokens.max()) >= logits.shape[1]:
        known = tokens < logits.shape[1]
        rows, tokens, values = rows[known], tokens[known], values[:, known]
    rows, tokens = rows.to(device), tokens.to(device)
    bias, factor, offset = values.to(device)
    scores = logits[rows, tokens] + bias
    scores = torch.where(scores < 0, scores * factor, scores / factor) - offset
    return logits.index_put((rows, tokens), scores)
