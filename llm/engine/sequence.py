"""Defines one request on its way through the engine, as token ids. It knows no text and no tensors of the model."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf

from llm.engine.kvcache import Segment, Slot
from llm.engine.sampler import RowSampling
from llm.sampling import SamplingParams


class Sequence:
    """Prompt and answer so far; in prefill until the whole prompt is computed, then in decode.

    `conversation` names the conversation whose keys and values it may begin with and leave behind ("" means none). The
    first `common` tokens of the prompt are the operator's: anyone's keys and values of them will do.
    """

    def __init__(
        self,
        prompt: SequenceOf[int],
        params: SamplingParams,
        *,
        max_new_tokens: int,
        stop_tokens: frozenset[int] = frozenset(),
        conversation: str = "",
        common: int = 0,
    ) -> None:
        self.prompt = list(prompt)
        self.max_new_tokens = max_new_tokens
        self.stop_tokens = stop_tokens
        self.conversation = conversation
        self.common = common
        self.cached = 0
        """Tokens of the prompt that need not be computed."""
        self.sampling = RowSampling(params, self.prompt, max_new_tokens)
        self.generated: list[int] = []
        self.slot: Slot | None = None

    def check(self, vocabulary: int) -> None:
        """Raise ValueError for a prompt that no model with that vocabulary can be given."""
        if not self.prompt or not all(0 <= token < vocabulary for token in self.prompt):
            raise ValueError("a prompt is one token or more of the model's vocabulary")

    @property
    def seat(self) -> Slot:
        if self.slot is None:
            raise ValueError("this sequence is not in the engine")
        return self.slot

    @property
    def segment(self) -> Segment:
        """The segment into which its prompt is computed."""
        if self.seat.segment is None:
            raise ValueError("this sequence is in decode")
        return self.seat.segment

    @property
    def need(self) -> int:
        """The most tokens that it may come to hold."""
        return len(self.prompt) + self.max_new_tokens

    @property
    def in_decode(self) -> bool:
        return self.seat.pool is not None

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are stored: the position of the next one."""
        return self.seat.length

    @property
    def stored(self) -> list[int]:
        """The tokens whose keys and values are stored."""
        return (self.prompt + self.generated)[: self.computed]

    @property
    def remaining(self) -> int:
        """Prompt tokens still to be computed."""
        return max(0, len(self.prompt) - self.computed)

    @property
    def last_token(self) -> int:
        return self.generated[-1]

    def advance(self, tokens: int) -> None:
        self.seat.length += tokens

    def append(self, token: int) -> None:
        self.generated.append(token)
        self.sampling.saw(token)
