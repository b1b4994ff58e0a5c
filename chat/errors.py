"""What can go wrong in the chat, as a tree of exceptions, and a sentence for every code.

llm.errors.RequestError
└── ChatError                   error
    ├── HistoryError            error                    something cannot be read or stored
    │   ├── NotFound            not_found
    │   ├── TurnInProgress      turn_in_progress
    │   ├── BadParent           bad_parent
    │   ├── NothingToContinue   nothing_to_continue
    │   ├── NotOffered          not_offered
    │   └── HistoryUnavailable  unavailable
    ├── BadFrame                bad_frame                a frame of the socket cannot be carried out
    │   └── TooLarge            too_large
    ├── RateLimited             rate_limited
    ├── Restarting              restarting
    └── Unreachable             unavailable
SocketClosed                    travels nowhere: the other end of the socket is gone

A `code` is stable: it travels over the socket and HTTP and is stored. The status codes of HTTP are in `chat.api`.
"""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from llm.errors import RequestError

SENTENCES: dict[str, str] = {
    "bad_frame": "This is not a frame of this protocol.",
    "too_large": "This is too large to send.",
    "no_session": "Your session has ended. Load the page again.",
    "forbidden": "The server does not accept this from this page. Load the page again.",
    "not_found": "There is no such conversation.",
    "not_offered": "This kind of chat is not offered here.",
    "bad_parent": "A question can only follow an answer.",
    "nothing_to_continue": "There is nothing to go on with: this answer is complete, or empty.",
    "turn_in_progress": "The answer before is still being written.",
    "visitor_limit": "You have as many answers under way as one visitor may. Please wait for one to end.",
    "queue_timeout": "Nobody could answer in time. Please try again.",
    "generation_timeout": "The answer took too long.",
    "rate_limited": "You have sent as many messages as one may in a minute.",
    "too_many_sockets": "This chat is open in as many tabs as it may be. Close one.",
    "unwatched": "Nobody was watching while this waited for its turn.",
    "overloaded": "Everyone is busy right now. Please try again in a moment.",
    "restarting": "The server is restarting. It will be back in a moment.",
    "unavailable": "The model is not available right now.",
    "invalid_request": "A parameter is out of its range.",
    "context_length_exceeded": "This is more text than the model can take in.",
    "interrupted": "The server stopped while this answer was being written.",
    "error": "Something went wrong.",
}
"""Every code an `error` or `generation.finished` can carry, with the sentence used where nothing closer is known."""


class ChatError(RequestError):
    """Base of everything the chat raises on purpose. Its message is the sentence of its code, or a closer one."""

    def __init__(self, message: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message or SENTENCES[self.code], retry_after=retry_after)


class HistoryError(ChatError):
    """Base of what the stores of conversations raise."""


class NotFound(HistoryError):
    """Raised when there is no such thing, and when it is another visitor's: the answer is the same for both."""

    code = "not_found"


class TurnInProgress(HistoryError):
    """Raised when the conversation has an answer that is still being written."""

    code = "turn_in_progress"


class BadParent(HistoryError):
    """Raised when a question is to follow something other than an answer."""

    code = "bad_parent"


class NothingToContinue(HistoryError):
    """Raised when an answer is to go on that is complete, or has no text."""

    code = "nothing_to_continue"


class NotOffered(HistoryError):
    """Raised when this site does not keep chats in the way that was asked for, or not this chat."""

    code = "not_offered"


class HistoryUnavailable(HistoryError):
    """Raised when the database does not answer; trying again later can help."""

    code = "unavailable"


class BadFrame(ChatError):
    """Raised when a frame cannot be carried out; `id` is the frame's, if it could be read."""

    code = "bad_frame"

    def __init__(self, message: str, id: str | UnsetType = UNSET) -> None:
        super().__init__(message)
        self.id = id


class TooLarge(BadFrame):
    """Raised when a frame or its message is longer than it may be."""

    code = "too_large"


class RateLimited(ChatError):
    """Raised when a visitor or an address has been counted as often in a minute as it may be."""

    code = "rate_limited"


class Restarting(ChatError):
    """Raised when this process is about to end and begins nothing new."""

    code = "restarting"


class Unreachable(ChatError):
    """Raised when the channel layer does not take a message for another process."""

    code = "unavailable"

    def __init__(self) -> None:
        super().__init__("The server is not quite itself. Please try again in a moment.")


class SocketClosed(Exception):
    """Raised when a frame is to be sent to a socket that is closed or closing."""
