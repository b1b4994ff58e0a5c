"""The operator finds and reads conversations, and cannot write into them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client

from chat.history.history import History
from chat.history.values import Accepted, Caller
from chat.models import Conversation, Generation, Message
from llm.events import Finished
from tests.chat.conftest import question

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = ("conversation", "message", "generation")


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


@pytest.fixture
def accepted(history: History, visitor: Caller) -> Accepted:
    found = async_to_sync(history.accept)(question(visitor, "Who is <b>Ada</b>?"))
    async_to_sync(found.store.finish)(found.generation, "A mathematician.", Finished(reason="stop"))
    return found


def key_of(accepted: Accepted, kind: str) -> UUID:
    keys = {"conversation": accepted.conversation, "message": accepted.answer, "generation": accepted.generation}
    return keys[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_lists_search_and_filter(operator: Client, accepted: Accepted, kind: str) -> None:
    path = f"/admin/chat/{kind}/"
    assert "1 " in operator.get(path).content.decode()
    assert operator.get(path, {"q": "nothing like it"}).context["cl"].result_count == 0
    found = 2 if kind == "message" else 1  # both messages of a conversation of that title
    assert operator.get(path, {"q": "Ada"}).context["cl"].result_count == found


def test_conversations_are_found_by_what_was_said_and_by_how_it_went(operator: Client, accepted: Accepted) -> None:
    path = "/admin/chat/conversation/"
    assert operator.get(path, {"q": "mathematician"}).context["cl"].result_count == 1
    assert operator.get(path, {"state": "stop"}).context["cl"].result_count == 1
    assert operator.get(path, {"state": "error"}).context["cl"].result_count == 0
    assert operator.get(path, {"visitor__user__isempty": "0"}).context["cl"].result_count == 0
    for words, count in (("ada mathematician", 1), ("ada physicist", 0), ('"a mathematician"', 1), ('"a ada"', 0)):
        assert operator.get(path, {"q": words}).context["cl"].result_count == count


def test_a_conversation_is_shown_with_its_messages_as_text(operator: Client, accepted: Accepted) -> None:
    page = operator.get(f"/admin/chat/conversation/{accepted.conversation}/change/").content.decode()
    assert "A mathematician." in page
    assert "&lt;b&gt;Ada&lt;/b&gt;" in page
    assert "<textarea" not in page
    assert 'name="_save"' not in page


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_can_be_added_or_changed(operator: Client, accepted: Accepted, kind: str) -> None:
    key = key_of(accepted, kind)
    assert operator.get(f"/admin/chat/{kind}/add/").status_code == 403
    assert operator.get(f"/admin/chat/{kind}/{key}/change/").status_code == 200
    changed = operator.post(
        f"/admin/chat/{kind}/{key}/change/", {"text": "forged", "title": "forged", "state": "error"}
    )
    assert changed.status_code == 403
    assert Message.objects.get(pk=accepted.answer).text == "A mathematician."
    assert Generation.objects.get(pk=accepted.generation).state == "stop"


def test_a_conversation_can_be_deleted_whole(operator: Client, accepted: Accepted) -> None:
    deleted = operator.post(f"/admin/chat/conversation/{accepted.conversation}/delete/", {"post": "yes"})
    assert deleted.status_code == 302
    for kind in (Conversation, Message, Generation):
        assert not kind.objects.exists()


def test_a_visitor_is_not_an_operator(client: Client, accepted: Accepted) -> None:
    client.force_login(User.objects.create_user("ada", password="x"))
    assert client.get(f"/admin/chat/conversation/{accepted.conversation}/change/").status_code == 302


class Text(HTMLParser):
    """What is read on a page, but for what stands in the database."""

    UNREAD = ("script", "style", "title")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("input", "link", "meta", "br", "img", "hr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not set(self._open) & set(self.UNREAD):
            self.found += [word for word in re.findall(r"[A-Za-z]{2,}", data) if word not in DATA]


DATA = {"Who", "is", "Ada", "mathematician", "root", "stop", "scripted", "Django", "UTC"}
"""Words of the rows that these tests make, and names."""


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kind", KINDS)
def test_the_admin_is_in_the_operators_language(operator: Client, accepted: Accepted, kind: str) -> None:
    key = key_of(accepted, kind)
    pages = ["/admin/", "/admin/chat/", f"/admin/chat/{kind}/", f"/admin/chat/{kind}/{key}/change/"]
    if kind != "message":
        pages.append(f"/admin/chat/{kind}/{key}/delete/")
    for page in pages:
        shown = operator.get(page, headers={"accept_language": "ja"}).content.decode()
        without_keys = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{8}", "", shown)
        assert Text(without_keys).found == [], page
