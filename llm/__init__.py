"""Generates text with a local Hugging Face model, for many visitors at once, under load control.

    controller = llm.get_controller()
    ticket = await controller.admit(visitor="ada")  # or Overloaded, Unavailable
    async with ticket.run(GenerationRequest(messages=(ChatMessage("user", "Hello"),))) as events:
        async for event in events: ...  # Queued*, Started, Delta*, Finished

The package knows nothing of chat pages, HTTP or WebSockets. Importing it is cheap: torch and transformers are loaded
in the llm service only, a process of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm.errors import (
        ConfigurationError,
        ContextLengthExceeded,
        InvalidRequest,
        LLMError,
        Overloaded,
        RequestError,
        Unavailable,
    )
    from llm.events import Delta, Event, Finished, Queued, Started, Stats, Status, Timings, Usage
    from llm.prompts import ChatPrompt
    from llm.request import ChatMessage, GenerationRequest
    from llm.sampling import SamplingParams
    from llm.service.client import ServiceClient, get_controller

_NAMES = {
    "errors": "ConfigurationError ContextLengthExceeded InvalidRequest LLMError Overloaded RequestError Unavailable",
    "events": "Delta Event Finished Queued Started Stats Status Timings Usage",
    "prompts": "ChatPrompt",
    "request": "ChatMessage GenerationRequest",
    "sampling": "SamplingParams",
    "service.client": "ServiceClient get_controller",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "ChatMessage", "ChatPrompt", "ConfigurationError", "ContextLengthExceeded", "Delta", "Event", "Finished",
    "GenerationRequest", "InvalidRequest", "LLMError", "Overloaded", "Queued", "RequestError", "SamplingParams",
    "ServiceClient", "Started", "Stats", "Status", "Timings", "Unavailable", "Usage", "get_controller",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"llm.{_HOME[name]}"), name)
