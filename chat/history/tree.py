"""Functions over the tree of messages in a conversation. They know neither rows nor sessions.

A tree is given as `Parents`: each message's parent, in the order in which the messages came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

from chat.errors import BadParent, NotFound
from chat.history.values import Question

Parents = Mapping[UUID, UUID | None]

Place = tuple[str, UUID | None]
"""The role and the parent of a message."""


def path(parents: Parents, message: UUID | None) -> list[UUID]:
    """Return the branch from the root to `message`. Raises NotFound if one of its messages was deleted."""
    found: list[UUID] = []
    while message is not None:
        if message not in parents:
            raise NotFound
        found.append(message)
        message = parents[message]
    return found[::-1]


def children(parents: Parents) -> dict[UUID | None, list[UUID]]:
    """Return the messages below each message, and the roots under None, in the order in which they came."""
    found: dict[UUID | None, list[UUID]] = {}
    for message, parent in parents.items():
        found.setdefault(parent, []).append(message)
    return found


def latest_end(parents: Parents, message: UUID) -> UUID:
    """Follow the latest child of each message, from `message` down to the end. Raises NotFound."""
    if message not in parents:
        raise NotFound
    below = children(parents)
    while message in below:
        message = below[message][-1]
    return message


def subtree(parents: Parents, message: UUID) -> set[UUID]:
    """Return a message and all that follows it."""
    below, found, left = children(parents), set[UUID](), [message]
    while left:
        found.add(key := left.pop())
        left += below.get(key, [])
    return found


def parent_of(question: Question, head: UUID | None, find: Callable[[UUID], Place | None]) -> UUID | None:
    """Return the message that a question follows, in a conversation that shows the branch to `head`.

    Where that ends in a question, whose answer was deleted, the new one takes its place, beside it: two in a row are
    what many chat templates refuse. `find` gives the place of a message of that conversation, None for any other.
    Raises NotFound, and BadParent when it is told to follow a question.
    """
    after = question.parent if question.branches else head
    if after is None:
        return None
    place = find(after)
    if place is None:
        raise NotFound
    role, parent = place
    if role == "assistant":
        return after
    if question.branches:
        raise BadParent
    return parent
