"""Defines what a caller asks of the model."""

from __future__ import annotations

from typing import Literal

import msgspec

from llm.sampling import SamplingParams

Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Role
    content: str


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The messages of one branch, oldest first; the last one is the visitor's, or a cut-off answer to be continued.

    `conversation` names the conversation whose keys and values may be used again ("" means none). The visitor is named
    at admission, not here.
    """

    messages: tuple[ChatMessage, ...]
    params: SamplingParams = SamplingParams()
    conversation: str = ""
