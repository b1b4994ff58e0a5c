"""Writes a conversation as a file to keep."""

from __future__ import annotations

from django.utils.translation import gettext as _

from chat.history.values import Branch


def as_markdown(branch: Branch) -> str:
    """Return the shown branch: a heading for the title and one for each message, texts as they were written.

    The headings are in the active language.
    """
    headings = {"user": _("You"), "assistant": _("Answer")}
    parts = [f"# {branch.conversation.title}"]
    if branch.settings.system:
        parts += [f"## {_('System prompt')}", branch.settings.system]
    for message in branch.messages:
        parts += [f"## {headings[message.role]}, {message.created:%Y-%m-%d %H:%M} UTC", message.text]
    return "\n\n".join(parts) + "\n"
