"""How the next token is chosen: the parameters a request may set, with their ranges.

Knows no tensors (`llm.engine.sampler` does the choosing) and no defaults of a model (its generation_config has them).
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from llm.errors import InvalidRequest

StopString = Annotated[str, Meta(min_length=1, max_length=100)]


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """None means: what the model's own generation_config says, else what `DEFAULTS` below says.

    temperature 0 takes the most likely token (then top_k, top_p and seed have no effect); top_k 0 and top_p 1 switch
    these filters off; repetition_penalty is the one of CTRL (https://arxiv.org/abs/1909.05858), 1 is off. `seed`
    makes an answer repeatable whatever else is running. `stop` adds to the stop strings of the prompt class.
    """

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    stop: Annotated[tuple[StopString, ...], Meta(max_length=8)] = ()
    max_new_tokens: Annotated[int, Meta(ge=1)] | None = None

    def over(self, defaults: SamplingParams) -> SamplingParams:
        """These parameters, with `defaults` in the place of what is None; the stop strings of both."""
        values = {
            name: getattr(defaults, name) if getattr(self, name) is None else getattr(self, name)
            for name in self.__struct_fields__
        }
        values["stop"] = tuple(dict.fromkeys(self.stop + defaults.stop))
        return SamplingParams(**values)

    def validated(self) -> SamplingParams:
        """Itself; raises InvalidRequest with the field's name and range where a value is out of it.

        Parameters that came over a wire were checked when they were decoded; those made in Python are checked here.
        """
        try:
            return msgspec.convert(msgspec.to_builtins(self), SamplingParams)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"Sampling parameters: {error}") from error


DEFAULTS = SamplingParams(temperature=0.7, top_k=0, top_p=0.95, repetition_penalty=1.0)
