"""Defines what a caller asks of the model."""

from __future__ import annotations

from typing import Literal

import msgspec

from llm.errors import InvalidRequest
from llm.sampling import SamplingParams

Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation. Raises InvalidRequest where its text has halves of characters.

    JSON can spell such lone surrogates; no other process, and no tokenizer, takes them.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"messages: a text has half a character at {error.start} (a lone surrogate)") from None


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of one branch, oldest first; the last one is the visitor's, or a cut-off answer to be continued.

    `conversation` names the conversation whose keys and values may be used again ("" means none). `left_out` is how
    many turns before the first one were left out already. The visitor is named at admission, not here.
    """

    messages: tuple[ChatMessage, ...]
    params: SamplingParams = SamplingParams()
    conversation: str = ""
    left_out: int = 0
