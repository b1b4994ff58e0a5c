"""The page offers for a setting what the server takes: every bound is accepted, what lies beyond it is not."""

from __future__ import annotations

from html.parser import HTMLParser

import msgspec
import pytest
from django.test import Client

from chat.history.values import ConversationSettings
from chat.wire.ranges import EXACT
from llm import conf

BEYOND = 1e-6


class Fields(HTMLParser):
    """The named fields of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: dict[str, dict[str, str | None]] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if tag in ("input", "textarea") and (name := named.get("name")):
            self.found[name] = named


@pytest.fixture
def fields(client: Client) -> dict[str, dict[str, str | None]]:
    return Fields(client.get("/").content.decode()).found


def accepted(name: str, value: object) -> bool:
    try:
        msgspec.convert({name: value}, ConversationSettings)
    except msgspec.ValidationError:
        return False
    return True


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "max_new_tokens", "seed"])
def test_the_bounds_of_a_number_are_the_servers(fields: dict[str, dict[str, str | None]], name: str) -> None:
    field = fields[name]
    whole = field["step"] == "1"
    least, most = (int(field[side] or "") if whole else float(field[side] or "") for side in ("min", "max"))
    assert accepted(name, least)
    assert accepted(name, most)
    assert accepted(name, 1.5) is not whole or name == "top_p"  # which ends at 1
    if name == "top_p":
        assert not accepted(name, 0)
    else:
        assert not accepted(name, least - (1 if whole else BEYOND))
    limit = {"max_new_tokens": conf.get_settings().max_new_tokens, "seed": EXACT}.get(name)
    if limit is not None:  # the operator's, and the browser's
        assert most == limit
    else:
        assert not accepted(name, most + (1 if whole else BEYOND))


@pytest.mark.django_db(transaction=True)
def test_the_lengths_of_texts_are_the_servers(fields: dict[str, dict[str, str | None]]) -> None:
    longest = int(fields["system"]["maxlength"] or "")
    assert accepted("system", "x" * longest)
    assert not accepted("system", "x" * (longest + 1))
    most, longest = (int(fields["stop"][name] or "") for name in ("data-most", "data-longest"))
    assert accepted("stop", ["x" * longest] * most)
    assert not accepted("stop", ["x" * longest] * (most + 1))
    assert not accepted("stop", ["x" * (longest + 1)])
