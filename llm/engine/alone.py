"""Runs models that packed batching would compute wrongly: the slower engine, one answer at a time.

Each step is one forward of the model's own `generate()`, taken apart so that tokens stream, a cancel is seen between
two of them and the request's own sampling chooses them. What the model keeps between steps is its own affair. The
module knows token ids, no text.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence as SequenceOf
from typing import Any

import torch
from torch import Tensor

from llm.engine import sampler
from llm.engine.sequence import Sequence
from llm.engine.step import FAILED, Result, Sample, outcome

logger = logging.getLogger(__name__)

TRIED = (5, 3)
"""Tokens of prompt and answer in the trial at load."""


class OwnSteps:
    """One run of `generate()`: it prepares everything as for itself, and each call of `logits` computes one step."""

    def __init__(self, model: Any, prompt: SequenceOf[int], max_new_tokens: int) -> None:
        self._model = model
        self._begun = False
        tokens = torch.tensor([list(prompt)], device=model.device)
        model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=max_new_tokens,
            do_sample=True,  # how its tokens are chosen is ours to say, and no beams are wanted
            num_beams=1,
            num_return_sequences=1,
            pad_token_id=0,
            custom_generate=self._take_over,
        )

    def _take_over(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kept: Any,
    ) -> Tensor:
        self._tokens, self._config, self._kept = input_ids, generation_config, kept
        return input_ids

    def logits(self) -> Tensor:
        """Return logits `[1, vocabulary]` after the prompt and the tokens that were appended to it."""
        if not self._begun:
            out = self._model._prefill(self._tokens, self._config, self._kept)
            self._begun = True
        else:
            length = 1 if self._kept["use_cache"] else None
            given = self._model.prepare_inputs_for_generation(self._tokens, next_sequence_length=length, **self._kept)
            out = self._model(**given, return_dict=True)
        self._kept = self._model._update_model_kwargs_for_generation(out, self._kept, is_encoder_decoder=False)
        logits: Tensor = out.logits[:, -1]
        return logits

    def append(self, token: int) -> None:
        self._tokens = torch.cat((self._tokens, self._tokens.new_tensor([[token]])), 1)


class Alone:
    """The engine for such models, with the methods of `step.Engine`. It answers one sequence after the other."""

    def __init__(self, model: Any, *, sample: Sample = sampler.sample) -> None:
        self._model = model
        self._sample = sample
        self._vocabulary: int = model.get_input_embeddings().weight.shape[0]
        self._sequences: deque[Sequence] = deque()
        self._steps: OwnSteps | None = None

    @property
    def busy(self) -> bool:
        return bool(self._sequences)

    def add(self, sequence: Sequence) -> None:
        sequence.check(self._vocabulary)
        self._sequences.append(sequence)

    def remove(self, sequence: Sequence, *, wipe: bool = False) -> None:
        """Forget a sequence, and what the model kept of it. Idempotent."""
        if sequence not in self._sequences:
            return
        if sequence is self._sequences[0]:
            self._steps = None
        self._sequences.remove(sequence)

    def clear(self) -> None:
        self._sequences.clear()
        self._steps = None

    def step(self) -> list[Result]:
        """Compute one forward for the first sequence; an exception ends that sequence only."""
        if not self._sequences:
            return []
        sequence = self._sequences[0]
        try:
            result = outcome(sequence, self._next(sequence))
        except torch.AcceleratorError:  # no further step can work in this process
            raise
        except Exception:
            logger.exception("An answer failed")
            result = Result(sequence, finish="error", message=FAILED)
        if result.finish:
            self.remove(sequence)
        elif self._steps is not None and result.token is not None:
            self._steps.append(result.token)
        return [result]

    def _next(self, sequence: Sequence) -> int | None:
        if self._steps is None:
            self._steps = OwnSteps(self._model, sequence.prompt, sequence.max_new_tokens)
        (token,) = self._sample(self._steps.logits(), [sequence.sampling])
        return token


@torch.inference_mode()
def tried(model: Any) -> Alone:
    """Return the engine for `model`. Raises what the model raises when it is asked for a few tokens."""
    if model.config.is_encoder_decoder:
        raise ValueError("it is an encoder with a decoder")
    length, count = TRIED
    vocabulary = model.get_input_embeddings().weight.shape[0]
    steps = OwnSteps(model, [token % vocabulary for token in range(length)], count)
    for token in range(count):
        logits = steps.logits()
        if logits.shape != (1, logits.shape[-1]) or not logits.isfinite().any():
            raise ValueError("its logits are no numbers")
        steps.append(token % vocabulary)
    return Alone(model)
