"""Turns a conversation into the text that a model continues, and that text into token ids.

The package knows no queue and no engine, and imports neither Django nor torch. A reader starts in `base`, the class
from which a prompt class derives; `rendering` makes requests ready, `fitting` says how many old turns they leave out,
and `encoding` makes their tokens, with `spelling` to tell whose the control tokens are.
"""

from __future__ import annotations

import importlib

from llm.errors import ConfigurationError, one_line
from llm.prompts.base import ChatContent, ChatPrompt, PromptTTL, RoleType
from llm.prompts.chat_template import ChatTemplatePrompt

__all__ = ["ChatContent", "ChatPrompt", "ChatTemplatePrompt", "PromptTTL", "RoleType", "load_prompt_class"]


def load_prompt_class(path: str) -> type[ChatPrompt]:
    """Return the class that LLM_PROMPT names; an empty path is the chat template. Raises ConfigurationError."""
    if not path:
        return ChatTemplatePrompt
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # its module may fail in any way
        raise ConfigurationError(
            f"LLM_PROMPT={path}: {one_line(error)}; give the dotted path of a ChatPrompt class"
        ) from error
    if not (isinstance(found, type) and issubclass(found, ChatPrompt)):
        raise ConfigurationError(f"LLM_PROMPT={path}: is not a subclass of llm.prompts.ChatPrompt")
    return found
