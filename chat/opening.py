"""What a model is told before a conversation: by the operator, by the visitor, or by both."""

from __future__ import annotations

from chat.conf import get_settings
from chat.records import NotOffered, Settings
from llm.conf import get_settings as llm_settings
from llm.request import ChatMessage


def opening(settings: Settings) -> tuple[ChatMessage, ...]:
    """The messages before a branch. Without any, LLM_SYSTEM_PROMPT is put before it where the prompt is made."""
    own = settings.system.strip()
    policy = get_settings().system_prompt
    if not own or policy == "fixed":
        return ()
    operators = llm_settings().system_prompt.strip() if policy == "extend" else ""
    return (ChatMessage("system", f"{operators}\n\n{own}" if operators else own),)


def check(settings: Settings) -> None:
    """Raises NotOffered where only the operator says what a model is told."""
    if settings.system.strip() and get_settings().system_prompt == "fixed":
        raise NotOffered
