"""Defines how the next token is chosen: the parameters that a request may set, with their ranges.

The module knows no tensors (`llm.engine.sampler` does the choosing), no vocabulary and no defaults of a model (its
generation_config has them).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from llm.errors import InvalidRequest

StopString = Annotated[str, Meta(min_length=1, max_length=100)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Bias = Annotated[float, Meta(ge=-100, le=100)]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The sampling parameters of a request. None: the model's generation_config decides, else `DEFAULTS`.

    temperature 0 takes the most likely token; the four filters and the seed have no effect then. The filters apply in
    this order: top_k keeps that many of the most likely tokens (0: all), top_p the fewest of these that have this share
    of the probability (1: all), min_p those that are at least this likely relative to the most likely one (0: all).

    repetition_penalty makes every token of prompt and answer less likely, once: `multiplicative` divides its logit
    (multiplies it where it is negative) as in CTRL (https://arxiv.org/abs/1909.05858), 1 is off; `subtractive`
    subtracts the penalty. Tokens of the answer alone lose presence_penalty once and frequency_penalty for each time
    they are in it, as in the API of OpenAI. logit_bias is added first, by token id.

    `seed` makes an answer repeatable whatever else is running. `stop` adds to the stop strings of the prompt class.
    """

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None  # a logit divided by less overflows
    repetition_penalty_method: Literal["multiplicative", "subtractive"] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[TokenId, Bias], Meta(max_length=300)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[tuple[StopString, ...], Meta(max_length=8)] = ()
    max_new_tokens: Annotated[int, Meta(ge=1)] | None = None

    def over(self, defaults: SamplingParams) -> SamplingParams:
        """Return these parameters with `defaults` in the place of None, and the stop strings of both."""
        values = {
            name: getattr(defaults, name) if getattr(self, name) is None else getattr(self, name)
            for name in self.__struct_fields__
        }
        values["stop"] = tuple(dict.fromkeys(self.stop + defaults.stop))
        return SamplingParams(**values)

    def validated(self) -> SamplingParams:
        """Return the parameters; raises InvalidRequest with the field's name and range if a value is out of it.

        Parameters that came over a wire were checked when they were decoded; those made in Python are checked here.
        """
        try:
            return msgspec.convert(msgspec.to_builtins(self), SamplingParams)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"Sampling parameters: {error}") from error


DEFAULTS = SamplingParams(
    temperature=0.7,
    top_k=0,
    top_p=0.95,
    min_p=0.0,
    repetition_penalty=1.0,
    repetition_penalty_method="multiplicative",
    presence_penalty=0.0,
    frequency_penalty=0.0,
)
