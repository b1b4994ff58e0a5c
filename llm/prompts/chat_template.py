"""Defines the default prompt class: the chat template that comes with the model's tokenizer."""

from __future__ import annotations

from typing import Any

from llm.prompts.base import ChatPrompt, RoleType


class ChatTemplatePrompt(ChatPrompt):
    """Renders with `tokenizer.apply_chat_template`; it knows no model by name."""

    add_special_tokens = False  # the template writes them itself

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        if not self.chat_mode:
            return self.get_requester_last_msg() or ""
        messages = [{"role": "system", "content": self.system}] if self.system else []
        for content in self.get_contents(opts):
            if content.message is not None:
                role = "assistant" if content.role_type is RoleType.RESPONDER else "user"
                messages.append({"role": role, "content": content.message})
        text: str = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return text
