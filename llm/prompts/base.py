"""Defines ChatPrompt, the base class of all prompt classes: how a conversation becomes the text a model continues.

A subclass overrides `create_prompt()`, and if need be `get_stop_strs()`, `build_initial_prompt()` and the two
replacement lists. It knows no tensors, no Django and no queue; one instance serves one request. The names are those
of ChatStream's AbstractChatPrompt, so that a class written for it runs after a change of its import line. Methods that
only concerned the echo of the prompt in the output (get_skip_len, get_custom_skip_echo_len) have no counterpart:
answers are decoded from the new tokens alone.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Sequence
from typing import Any

from llm.request import ChatMessage

Replacements = Sequence[tuple[str, str]]


class RoleType(enum.Enum):
    """Who speaks, whatever the names of the roles are (they may be equal)."""

    REQUESTER = "requester"
    RESPONDER = "responder"
    UNKNOWN = "unknown"


class PromptTTL(enum.Enum):
    """How much of the conversation the model sees: all of it, or the last question only."""

    MULTI_TURN = "multi_turn"
    SINGLE_TURN = "single_turn"


class ChatContent:
    """One message under its role's name; `message` None is the open place that the model is to fill."""

    def __init__(
        self,
        role: str,
        message: str | None,
        role_type: RoleType = RoleType.UNKNOWN,
        child_messages: list[str] | None = None,
        message_id: str | None = None,
    ) -> None:
        self.role = role
        self.message = message
        self.role_type = role_type
        self.child_messages = child_messages
        self.message_id = message_id or str(uuid.uuid4())

    def get_role(self) -> str:
        return self.role

    def get_message(self) -> str | None:
        return self.message

    def set_message(self, message: str | None) -> None:
        self.message = message

    def get_message_id(self) -> str:
        return self.message_id

    def get_role_type(self) -> RoleType:
        return self.role_type

    def get_child_messages(self) -> list[str] | None:
        return self.child_messages

    def to_dict(self) -> dict[str, Any]:
        return {
            "role": self.role,
            "message": self.message,
            "role_type": self.role_type.value,
            "child_messages": self.child_messages,
            "message_id": self.message_id,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ChatContent:
        return cls(**{**values, "role_type": RoleType(values["role_type"])})


class ChatPrompt:
    """A conversation, and the way in which its model wants it written."""

    add_special_tokens: bool | None = None
    """Whether the tokenizer adds its own (a BOS token, say) around the text; None leaves it to the tokenizer."""

    def __init__(self) -> None:
        self.system = ""
        self.requester = ""
        self.responder = ""
        self.chat_mode = True
        self.chat_contents: list[ChatContent] = []
        self.prompt_ttl = PromptTTL.MULTI_TURN
        self.tokenizer: Any = None
        self.partial = ""
        self._prefix_as_stop_str = False

    # What a subclass says about its model

    def create_prompt(self, opts: dict[str, Any] | None = None) -> str:
        """Return the text that the model continues, ending where the answer begins."""
        raise NotImplementedError(f"{type(self).__name__} has to define create_prompt()")

    def build_initial_prompt(self, chat_prompt: ChatPrompt) -> None:
        """Add the turns with which every conversation opens (few-shot examples) to `chat_prompt`. None by default."""

    def get_stop_strs(self) -> list[str] | None:
        """Return strings that end an answer; they are not part of it."""
        return None

    def get_replacement_when_input(self) -> Replacements | None:
        """Return (from, to) pairs that are applied to the visitor's texts before they enter the prompt."""
        return None

    def get_replacement_when_output(self) -> Replacements | None:
        """Return (from, to) pairs that are applied to the answer."""
        return None

    # Configuration

    def set_system(self, system: str) -> None:
        self.system = system

    def set_requester(self, requester: str) -> None:
        self.requester = requester

    def set_responder(self, responder: str) -> None:
        self.responder = responder

    def set_tokenizer(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def set_prompt_ttl(self, ttl: PromptTTL) -> None:
        self.prompt_ttl = ttl

    def set_chat_mode_enabled(self, enabled: bool) -> None:
        """Set the chat mode; without it the model continues the visitor's last text as it is."""
        self.chat_mode = enabled

    def set_prefix_as_stop_str_enabled(self, enabled: bool) -> None:
        """Set whether the requester's name and a colon end the answer (if a model goes on with the visitor's part)."""
        self._prefix_as_stop_str = enabled

    # The conversation

    def add_requester_msg(
        self, message: str | None, child_message: str | None = None, child_messages: list[str] | None = None
    ) -> None:
        if child_message is not None and child_messages is not None:
            raise ValueError("give child_message or child_messages, not both")
        children = [child_message] if child_message is not None else child_messages
        for old, new in self.get_replacement_when_input() or ():
            message = message.replace(old, new) if message is not None else None
        self.chat_contents.append(ChatContent(self.requester, message, RoleType.REQUESTER, children))

    def add_responder_msg(self, message: str | None) -> None:
        self.chat_contents.append(ChatContent(self.responder, message, RoleType.RESPONDER))

    def get_contents(self, opts: dict[str, Any] | None = None) -> list[ChatContent]:
        """Return what the model may see. opts: `omit_last_message` (bool), `to_message_id` (the last one to see)."""
        opts = opts or {}
        contents = self.chat_contents
        if self.prompt_ttl is PromptTTL.SINGLE_TURN:
            contents = contents[-2:]
        if (last := opts.get("to_message_id")) is not None:
            ids = [content.message_id for content in contents]
            contents = contents[: ids.index(last) + 1] if last in ids else []
        return list(contents[:-1] if opts.get("omit_last_message") else contents)

    def get_turn(self) -> int:
        """Return how many questions were asked."""
        return len(self._of(RoleType.REQUESTER))

    def is_empty(self) -> bool:
        return not self.chat_contents

    def is_requester_role(self, role: str) -> bool:
        return role == self.requester

    def find_chat_content_by_message_id(self, message_id: str) -> ChatContent | None:
        return next((content for content in self.chat_contents if content.message_id == message_id), None)

    def get_requester_last_msg(self) -> str | None:
        return self._last(RoleType.REQUESTER, "message")

    def get_responder_last_msg(self) -> str | None:
        return self._last(RoleType.RESPONDER, "message")

    def get_requester_last_msg_id(self) -> str | None:
        return self._last(RoleType.REQUESTER, "message_id")

    def get_responder_last_msg_id(self) -> str | None:
        return self._last(RoleType.RESPONDER, "message_id")

    def set_requester_last_msg(self, message: str | None) -> None:
        self._of(RoleType.REQUESTER)[-1].set_message(message)

    def set_responder_last_msg(self, message: str | None) -> None:
        self._of(RoleType.RESPONDER)[-1].set_message(message)

    def clear_last_responder_message(self) -> None:
        """Open the last answer again, if the conversation ends with one."""
        if self._ends_with(RoleType.RESPONDER):
            self.chat_contents[-1].set_message(None)

    def remove_last_requester_msg(self) -> None:
        if self._ends_with(RoleType.REQUESTER):
            self.chat_contents.pop()

    def remove_last_responder_msg(self) -> None:
        if self._ends_with(RoleType.RESPONDER):
            self.chat_contents.pop()

    def clear_history(self) -> None:
        self.chat_contents.clear()

    def to_dict(self) -> dict[str, Any]:
        """Return the conversation and the names of its roles as plain values."""
        return {
            "system": self.system,
            "requester": self.requester,
            "responder": self.responder,
            "chat_contents": [content.to_dict() for content in self.chat_contents],
        }

    def from_dict(self, values: dict[str, Any]) -> None:
        """Take over the values of `to_dict`."""
        self.system, self.requester, self.responder = values["system"], values["requester"], values["responder"]
        self.chat_contents = [ChatContent.from_dict(content) for content in values["chat_contents"]]

    # What the backend calls

    def turn_ends(self) -> frozenset[int]:
        """Return the ids of the tokens that end an answer in the prompts of this class. None by default."""
        return frozenset()

    def set_messages(self, messages: Sequence[ChatMessage]) -> None:
        """Take over a conversation that ends with the visitor's text, and open the place for its answer.

        If it ends with an answer, that answer is to be continued: it becomes `partial`, the text already in the open
        place. A system message replaces the class's own system text.
        """
        self.clear_history()
        self.build_initial_prompt(self)
        self.partial = ""
        if messages and messages[-1].role == "assistant":
            *messages, last = messages
            self.partial = last.content
        for message in messages:
            if message.role == "system":
                self.set_system(message.content)
            elif message.role == "user":
                self.add_requester_msg(message.content)
            else:
                self.add_responder_msg(message.content)
        self.add_responder_msg(None)

    def render(self) -> str:
        """Return the text that the model continues: the prompt up to its open place, and the text already there."""
        return self.create_prompt() + self.partial

    def stop_strings(self) -> tuple[str, ...]:
        """Return `get_stop_strs()`, and the requester's prefix if that was asked for. Raises TypeError."""
        found: Any = self.get_stop_strs() or ()
        if isinstance(found, str) or not all(isinstance(string, str) for string in found):
            raise TypeError("get_stop_strs() has to return a list of strings")
        strings = [string for string in found if string]
        if self._prefix_as_stop_str and self.chat_mode and self.requester:
            strings.append(f"{self.requester}:")
        return tuple(dict.fromkeys(strings))

    def _of(self, role_type: RoleType) -> list[ChatContent]:
        return [content for content in self.chat_contents if content.role_type is role_type]

    def _last(self, role_type: RoleType, attribute: str) -> str | None:
        contents = self._of(role_type)
        return getattr(contents[-1], attribute) if contents else None

    def _ends_with(self, role_type: RoleType) -> bool:
        return bool(self.chat_contents) and self.chat_contents[-1].role_type is role_type
