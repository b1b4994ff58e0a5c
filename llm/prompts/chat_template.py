"""Defines the default prompt class: the chat template that comes with the model's tokenizer."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Any

from llm.prompts.base import ChatPrompt, RoleType

logger = logging.getLogger(__name__)

Message = dict[str, str]

SYSTEM, QUESTION, ANSWER = "Qx7system", "Qx7question", "Qx7answer"
"""Texts that no template has, and that none changes."""


class ChatTemplate:
    """The chat template of a tokenizer, tried once. Raises what the template raises on a single question.

    `takes_system` tells whether it writes system messages. Some refuse them, by a word of their own or since turns have
    to alternate, and some leave them out.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        asked = [said("user", QUESTION)]
        self.render(asked)
        self.takes_system = SYSTEM in self._tried([said("system", SYSTEM), *asked])
        if not self.takes_system:
            logger.warning("The chat template takes no system message: system prompts go before the first question.")

    def render(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return text

    def turn_ends(self) -> frozenset[int]:
        """Return the added tokens that follow an answer, blanks aside, where it is the last and where it is not."""
        answered = [said("user", QUESTION), said("assistant", ANSWER)]
        added = {token.content: id_ for id_, token in self._tokenizer.added_tokens_decoder.items()}
        names = sorted(filter(str.strip, added), key=len, reverse=True)
        follows = re.compile(rf"{ANSWER}\s*({'|'.join(map(re.escape, names)) or '(?!)'})")
        tried = [self._tried(answered, False), self._tried([*answered, said("user", QUESTION)])]
        return frozenset(added[found[1]] for found in map(follows.search, tried) if found)

    def _tried(self, messages: list[Message], add_generation_prompt: bool = True) -> str:
        """Return what the template makes of messages that it need not take; nothing if it does not."""
        try:
            return self.render(messages, add_generation_prompt)
        except Exception as error:  # noqa: BLE001 a template may refuse with whatever is an error in Jinja
            logger.debug("The chat template refuses %s: %s", [message["role"] for message in messages], error)
            return ""


@lru_cache(maxsize=1)
def template_of(tokenizer: Any) -> ChatTemplate:
    """Return the chat template of a tokenizer, tried once."""
    return ChatTemplate(tokenizer)


class ChatTemplatePrompt(ChatPrompt):
    """Renders with `tokenizer.apply_chat_template`; it knows no model by name."""

    add_special_tokens = False  # the template writes them itself

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        if not self.chat_mode:
            return self.get_requester_last_msg() or ""
        template = template_of(self.tokenizer)
        messages = [
            said("assistant" if content.role_type is RoleType.RESPONDER else "user", content.message)
            for content in self.get_contents(opts)
            if content.message is not None
        ]
        if self.system:
            messages = with_system(messages, self.system, template.takes_system)
        return template.render(messages)

    def turn_ends(self) -> frozenset[int]:
        return template_of(self.tokenizer).turn_ends()


def said(role: str, text: str) -> Message:
    return {"role": role, "content": text}


def with_system(messages: list[Message], system: str, as_message: bool) -> list[Message]:
    """Return the messages after a system message, or with its text before the first question."""
    if as_message:
        return [said("system", system), *messages]
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages))
    question = "\n\n".join([system, *(message["content"] for message in messages[first : first + 1])])
    return [*messages[:first], said("user", question), *messages[first + 1 :]]
