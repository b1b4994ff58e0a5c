"""Defines what this package raises on purpose, as a tree of exceptions.

LLMError                        code
├── ConfigurationError          configuration            a setting, a model or a device that cannot work
└── RequestError                error                    one request fails, nothing else does
    ├── InvalidRequest          invalid_request          a field is out of its range
    ├── ContextLengthExceeded   context_length_exceeded  system prompt and last text alone do not fit
    ├── Overloaded              overloaded               every place, running and waiting, is taken
    ├── VisitorLimit            visitor_limit            this visitor has as many running and waiting as one may
    └── Unavailable             unavailable              the model is loading, or the service is not reachable
ModelError                      never leaves the package: a model is served in another way, or refused in one line
├── Unreadable                                           a GGUF file is at fault
├── Unsupported                                          packed batching would not compute the model right
└── Unwritable                                           the graph of the model cannot be written out as a step program

A `code` is stable: it travels over the wire and is stored. A message is one sentence for a person, without a
traceback, a path of this machine or another visitor's text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class LLMError(Exception):
    """Base of every exception that this package raises on purpose."""

    code: ClassVar[str] = "error"


class ConfigurationError(LLMError):
    """Raised when the operator has to change something; the message is one line and says what."""

    code = "configuration"


class RequestError(LLMError):
    """Raised when one request cannot be served. `retry_after` is in seconds, None if trying again does not help."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequest(RequestError):
    """Raised when a field of a request is out of its range; the message names the field and the range."""

    code = "invalid_request"


class ContextLengthExceeded(RequestError):
    """Raised when prompt and answer do not fit the model's context even without any earlier turn."""

    code = "context_length_exceeded"


class Overloaded(RequestError):
    """Raised by an admission when the queue is full. `queue_size` is the number of requests that wait."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float | None = None, queue_size: int = 0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.queue_size = queue_size


class VisitorLimit(RequestError):
    """Raised by an admission when this visitor already holds as many places as one visitor may."""

    code = "visitor_limit"


class Unavailable(RequestError):
    """Raised when nothing can be generated right now: the model is loading or its process is not reachable."""

    code = "unavailable"


class ModelError(Exception):
    """Base of what is found out about a model while it is loaded; the message says why."""


class Unreadable(ModelError):
    """Raised when a GGUF file is at fault, not the folder of its copy."""


class Unsupported(ModelError):
    """Raised when packed batching would not compute a model right."""


class Unwritable(ModelError):
    """Raised when something in the graph of a model has no text."""


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    error.code: error
    for error in (RequestError, InvalidRequest, ContextLengthExceeded, Overloaded, VisitorLimit, Unavailable)
}
"""The request errors by their code: an error that crossed a process border becomes an exception again by this table."""


def one_line(error: Exception) -> str:
    """Return the type and message of an exception on one line, to be quoted in a message of this package."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


@contextmanager
def panics_raised() -> Iterator[None]:
    """Raise RuntimeError where a library in Rust panics within the context.

    What it raises by itself is no Exception: it would end the thread, and everybody's answers, for one text.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # the class cannot be imported
            raise
        raise RuntimeError(f"a library panicked: {error}") from error
