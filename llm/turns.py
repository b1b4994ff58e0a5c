"""Groups the messages of a conversation in turns, and says how many of the oldest a prompt leaves out.

A turn is a visitor's text and its answer. The module knows neither tokens nor templates: a size is whatever its caller
counts.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from llm.request import ChatMessage, GenerationRequest

Turn = tuple[ChatMessage, ...]


class Turns(NamedTuple):
    """The messages of a conversation: those of the system, and the turns of all others, oldest first."""

    system: Turn
    turns: list[Turn]

    def without(self, oldest: int) -> Turn:
        """Return the messages without so many of the oldest turns."""
        return (*self.system, *(message for turn in self.turns[oldest:] for message in turn))


MARKUP = 32
"""Characters that a message counts beside its text, for what a template writes around it."""

SENT = 4_000_000
"""Characters of the longest conversation that is sent to the model's process, more than any model's context has."""


def in_turns(messages: Sequence[ChatMessage]) -> Turns:
    system: list[ChatMessage] = []
    turns: list[list[ChatMessage]] = []
    for message in messages:
        if message.role == "system":
            system.append(message)
        elif message.role == "user" or not turns:
            turns.append([message])
        else:
            turns[-1].append(message)
    return Turns(tuple(system), [tuple(turn) for turn in turns])


def characters(*messages: ChatMessage) -> int:
    """Return the size of messages in characters."""
    return sum(len(message.content) + MARKUP for message in messages)


def left_out(old: Sequence[int], others: int, room: int) -> int:
    """Return how many turns to leave out, so that what stays is no larger than `room`; all if that does not suffice.

    `old` are the sizes of the turns that may go, oldest first, `others` is the size of all that has to stay. How much
    goes is counted in steps of a quarter of the room from the beginning of the conversation: after a cut some turns
    only append to what was there before, and its keys and values can be used again.
    """
    upto = list(accumulate(old, initial=0))
    excess = upto[-1] + others - room
    if excess <= 0:
        return 0
    step = max(1, room // 4)
    for least in (step * -(-excess // step), excess):
        if least <= upto[-1]:
            return bisect.bisect_left(upto, least)
    return len(old)


def bounded(request: GenerationRequest) -> GenerationRequest:
    """Return the request without the oldest turns of a conversation of more than SENT characters."""
    if characters(*request.messages) <= SENT:
        return request
    conversation = in_turns(request.messages)
    old = conversation.turns[:-1]
    gone = left_out([characters(*turn) for turn in old], characters(*conversation.without(len(old))), SENT)
    return msgspec.structs.replace(request, messages=conversation.without(gone), left_out=request.left_out + gone)
