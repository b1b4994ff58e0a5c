"""What is asked of the model."""

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
    """The messages of one branch, oldest first; the last one is the visitor's, or a cut-off answer to go on with.

    `conversation` names whose keys and values may be used again (""  = nobody's). Whom a request is from is said at
    admission, not here.
    """

    messages: tuple[ChatMessage, ...]
    params: SamplingParams = SamplingParams()
    conversation: str = ""
