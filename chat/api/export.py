"""Writes a conversation as a file to keep."""

from __future__ import annotations

from chat.history.values import Branch

HEADINGS = {"user": "You", "assistant": "Answer"}


def as_markdown(branch: Branch) -> str:
    """Return the shown branch: a heading for the title and one for each message, texts as they were written."""
    parts = [f"# {branch.conversation.title}"]
    if branch.settings.system:
        parts += ["## System prompt", branch.settings.system]
    for message in branch.messages:
        parts += [f"## {HEADINGS[message.role]}, {message.created:%Y-%m-%d %H:%M} UTC", message.text]
    return "\n\n".join(parts) + "\n"
