"""Text generation with a local Hugging Face model, for many at once, under load control.

    controller = llm.get_controller()
    ticket = await controller.admit(visitor="ada")  # or Overloaded, Unavailable
    async with ticket.run(GenerationRequest(messages=(ChatMessage("user", "Hello"),))) as events:
        async for event in events: ...  # Queued*, Started, Delta*, Finished

Knows nothing of chat pages, HTTP or WebSockets. Importing it is cheap: torch and transformers are loaded in the
llm service only, a process of its own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm.client import ServiceClient, get_controller
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

_HOME = {
    "ChatMessage": "request",
    "ChatPrompt": "prompts",
    "ConfigurationError": "errors",
    "ContextLengthExceeded": "errors",
    "Delta": "events",
    "Event": "events",
    "Finished": "events",
    "GenerationRequest": "request",
    "InvalidRequest": "errors",
    "LLMError": "errors",
    "Overloaded": "errors",
    "Queued": "events",
    "RequestError": "errors",
    "SamplingParams": "sampling",
    "ServiceClient": "client",
    "Started": "events",
    "Stats": "events",
    "Status": "events",
    "Timings": "events",
    "Unavailable": "errors",
    "Usage": "events",
    "get_controller": "client",
}

__all__ = [
    "ChatMessage",
    "ChatPrompt",
    "ConfigurationError",
    "ContextLengthExceeded",
    "Delta",
    "Event",
    "Finished",
    "GenerationRequest",
    "InvalidRequest",
    "LLMError",
    "Overloaded",
    "Queued",
    "RequestError",
    "SamplingParams",
    "ServiceClient",
    "Started",
    "Stats",
    "Status",
    "Timings",
    "Unavailable",
    "Usage",
    "get_controller",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"llm.{_HOME[name]}"), name)
