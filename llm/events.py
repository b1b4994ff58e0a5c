"""Defines the events of one generation, and the values that describe the model's state and load.

A generation tells any number of `Queued`, then `Started`, any number of `Delta`, and one `Finished`. `Finished` comes
exactly once for every request that was run, on every path, and nothing follows it. `Queued` and `Started` may be
missing (a request can end while it waits, or start at once). `Status` is about the model as a whole. All of them are
msgspec structs, so that they are the same objects in a process and between processes.
"""

from __future__ import annotations

from typing import Literal

import msgspec

FinishReason = Literal["stop", "length", "cancelled", "timeout", "error", "interrupted"]
"""stop: the model or a stop string ended it; length: max_new_tokens; interrupted: a process died or was shut down."""

State = Literal["loading", "ready", "degraded", "paused", "down", "failed"]
"""failed: the model cannot start until the operator changes something; `Status.message` says what."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of tokens. `prompt_tokens` is the whole prompt, `cached_tokens` the part of it that needed no prefill.

    `left_out_turns` is how many of the conversation's oldest turns are not in the prompt, since all of them did not
    fit. It is a count of turns: a question and its answer.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    left_out_turns: int = 0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds. TTFT runs from the admission of the request to its first text.

    `decode_time` runs from the first to the last token, and `tokens_per_second` is measured over it; both are None
    for answers of fewer than two tokens.
    """

    queue_time: float | None = None
    ttft: float | None = None
    decode_time: float | None = None
    tokens_per_second: float | None = None


class Queued(msgspec.Struct, frozen=True, kw_only=True, tag="queued"):
    """The request waits. Position 1 is next; `eta` is the expected wait in seconds, None while it is not known."""

    position: int
    size: int
    eta: float | None = None


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started"):
    """The request has a running place and its prefill begins."""

    queue_time: float


class Delta(msgspec.Struct, frozen=True, tag="delta"):
    """Further text, never empty; the answer is the concatenation of all deltas."""

    text: str


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished"):
    """The end. `code` and `message` explain `error`, `timeout` and `interrupted`; `model` names the model that
    answered."""

    reason: FinishReason
    usage: Usage = Usage()
    timings: Timings = Timings()
    code: str | None = None
    message: str | None = None
    model: str = ""


Event = Queued | Started | Delta | Finished


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the model. While it loads, `progress` runs from 0 to 1 and `message` names the current step."""

    state: State
    progress: float | None = None
    message: str | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The present load, the limits, and totals since the model's process started."""

    state: State
    model: str
    processing: int
    waiting: int
    max_processing: int
    max_waiting: int
    accepted: int = 0
    refused: int = 0
    finished: dict[str, int] = msgspec.field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    left_out_turns: int = 0
    """Old turns that did not fit in prompts, each time that one was left out."""
    kv_tokens: int = 0
    """Token places of KV memory, for running requests and kept prefixes; running ones have reserved `kv_reserved`."""
    kv_reserved: int = 0
    mode: str = ""
    """How the model is run, in a few words: which engine, device and number type."""
