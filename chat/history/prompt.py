"""Makes what the model is told of a conversation: system prompts of the operator and the visitor, then the branch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from chat.conf import get_settings
from chat.errors import NotOffered
from chat.history.values import ConversationSettings
from llm.conf import get_settings as llm_settings
from llm.request import ChatMessage, Role


def prompt(settings: ConversationSettings, said: Iterable[tuple[str, str]], partial: str) -> tuple[ChatMessage, ...]:
    """Return the messages for the model: `said` are roles and texts of a branch, `partial` an answer that goes on.

    Without a system prompt of its own, LLM_SYSTEM_PROMPT is put before it where the prompt is rendered.
    """
    answer = (ChatMessage("assistant", partial),) if partial else ()
    return (*_system(settings), *_turns(said), *answer)


def check(settings: ConversationSettings) -> None:
    """Raise NotOffered for a system prompt where only the operator gives one."""
    if settings.system.strip() and get_settings().system_prompt == "fixed":
        raise NotOffered


def _system(settings: ConversationSettings) -> tuple[ChatMessage, ...]:
    own = settings.system.strip()
    policy = get_settings().system_prompt
    if not own or policy == "fixed":
        return ()
    operators = llm_settings().system_prompt.strip() if policy == "extend" else ""
    return (ChatMessage("system", f"{operators}\n\n{own}" if operators else own),)


def _turns(said: Iterable[tuple[str, str]]) -> list[ChatMessage]:
    """Return questions and answers by turns, without questions that have no answer, but for the last.

    Many chat templates refuse two questions in a row.
    """
    turns: list[ChatMessage] = []
    for role, text in said:
        asked = bool(turns) and turns[-1].role == "user"
        if asked and (role == "user" or not text):
            turns.pop()
        if role == "user" or (asked and text):
            turns.append(ChatMessage(cast(Role, role), text))
    return turns
