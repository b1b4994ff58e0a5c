"""What a page of the admin asks of the database does not grow with what is in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat import retention
from chat.models import Conversation, Feedback, Generation, Message, Visitor
from chat.retention import purge

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/chat/conversation/"
DEEP = 1_200
"""Messages of a conversation that are more than Python's stack has frames."""


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(User.objects.create_superuser("root", password="x"))
    return client


def many(conversations: int, messages: int, user: User | None = None) -> list[Conversation]:
    """Make conversations, each with questions and answers that follow one another."""
    visitor = Visitor.objects.create(user=user)
    rows = [Conversation(visitor=visitor, title=f"Talk {n}", updated=timezone.now()) for n in range(conversations)]
    Conversation.objects.bulk_create(rows)
    said: list[Message] = []
    for row in rows:
        for number in range(messages):
            role = "assistant" if number % 2 else "user"
            before = said[-1] if number else None
            said.append(Message(conversation=row, parent=before, role=role, text=f"word {number} <of {row.title}>"))
    Message.objects.bulk_create(said)
    answers = [message for message in said if message.role == "assistant"]
    Generation.objects.bulk_create(
        Generation(visitor=visitor, conversation=each.conversation, answer=each, process=uuid4(), state="stop")
        for each in answers
    )
    Feedback.objects.bulk_create(Feedback(answer=each, value=1) for each in answers[::3])
    for row in rows:
        row.head = Message.objects.filter(conversation=row).latest("created")
    Conversation.objects.bulk_update(rows, ["head"])
    return rows


def asked(ask: Callable[[], HttpResponse]) -> tuple[HttpResponse, list[str]]:
    """Return an answer, and the queries that it took, but for those whose results Django keeps."""
    with CaptureQueriesContext(connection) as queries:
        answer = ask()
    asked = [str(query["sql"]) for query in queries.captured_queries]
    return answer, [sql for sql in asked if "django_content_type" not in sql]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"q": "word"},
        {"q": "talk word"},
        {"q": "nothing like it"},
        {"state": "stop"},
        {"q": "word", "state": "stop", "visitor__user__isempty": "1"},
        {"o": "3"},
        {"q": "word", "o": "-3", "all": ""},
    ],
    ids=str,
)
def test_a_list_of_conversations_joins_neither_messages_nor_generations(
    operator: Client, query: dict[str, str]
) -> None:
    many(2, 2)
    _, few = asked(lambda: operator.get(LIST, query))
    many(60, 10)
    page, queries = asked(lambda: operator.get(LIST, query))
    assert page.context["cl"].result_count == (0 if query.get("q") == "nothing like it" else 62)
    assert len(queries) == len(few)
    assert [sql for sql in queries if re.search(r'JOIN "chat_(message|generation)"', sql)] == []
    messages = [sql for sql in queries if '"chat_message"' in sql]
    assert messages
    for sql in messages:  # each time inside a subquery, of the conversation at hand
        looked = re.findall(
            r'FROM "chat_message" U0 WHERE \(?U0\."conversation_id" = \("chat_conversation"\."id"\)', sql
        )
        assert len(looked) == sql.count('FROM "chat_message"')


def test_the_page_of_a_conversation_shows_its_last_messages_and_leads_to_all(operator: Client) -> None:
    short, long = *many(1, 10), *many(1, 400)
    _, few = asked(lambda: operator.get(f"{LIST}{short.pk}/change/"))
    page, queries = asked(lambda: operator.get(f"{LIST}{long.pk}/change/"))
    assert len(queries) == len(few)
    shown = [int(number) for number in re.findall(r"<p>word (\d+) &lt;of", page.content.decode())]
    assert shown == list(range(350, 400))
    (link,) = re.findall(r'<a href="([^"]+)">400 messages</a>', page.content.decode())
    assert operator.get(link).context["cl"].result_count == 400


def test_the_page_of_a_conversation_shows_the_beginnings_of_long_texts(operator: Client) -> None:
    (row,) = many(1, 50)
    Message.objects.filter(conversation=row).update(text="long " * 20_000)
    assert len(operator.get(f"{LIST}{row.pk}/change/").content) < 250_000
    message = Message.objects.filter(conversation=row).first()
    assert message is not None
    assert len(operator.get(f"/admin/chat/message/{message.pk}/change/").content) > 100_000


def delete(operator: Client, rows: list[Conversation]) -> tuple[str, list[str]]:
    """Delete rows that were selected in the list; return the page that asks, and the queries of both requests."""
    form: dict[str, Any] = {"action": "delete_selected", "_selected_action": [str(row.pk) for row in rows]}
    page, before = asked(lambda: operator.post(LIST, form))
    done, after = asked(lambda: operator.post(LIST, {**form, "post": "yes"}))
    assert (page.status_code, done.status_code) == (200, 302)
    return page.content.decode(), before + after


def test_deleting_many_takes_as_many_queries_whatever_they_hold(operator: Client) -> None:
    kept = many(3, 4)
    _, few = delete(operator, many(30, 2))
    page, queries = delete(operator, many(30, 60))
    assert len(queries) == len(few)
    for count in ("Conversations: 30", "Messages: 1800", "Generations: 900", "Ratings: 300"):
        assert f"<li>{count}</li>" in page
    assert set(Conversation.objects.all()) == set(kept)
    assert Message.objects.count() == 12
    assert (Generation.objects.count(), Feedback.objects.count()) == (6, 2)


def test_deleting_goes_on_in_batches(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    page, _ = delete(operator, many(25, 2))
    assert page.count("<li>Talk ") == 20
    assert "<li>…</li>" in page
    assert not Conversation.objects.exists()
    assert not Message.objects.exists()


def test_a_conversation_can_be_deleted_however_long_it_is(operator: Client) -> None:
    rows = many(2, DEEP)
    path = f"{LIST}{rows[0].pk}/delete/"
    assert f"Messages: {DEEP}" in operator.get(path).content.decode()
    assert operator.post(path, {"post": "yes"}).status_code == 302
    assert Message.objects.count() == DEEP
    Conversation.objects.update(deleted=timezone.now() - 2 * retention.DELETED)
    _, queries = asked(lambda: HttpResponse(str(purge().conversations)))
    assert not Message.objects.exists()
    assert len([sql for sql in queries if sql.startswith('DELETE FROM "chat_message"')]) == 1


def test_an_account_is_deleted_with_its_conversations_however_long_they_are(operator: Client) -> None:
    user = User.objects.create_user("ada", password="x")
    many(1, DEEP, user)
    (kept,) = many(1, 2)
    path = f"/admin/auth/user/{user.pk}/delete/"
    assert f"Messages: {DEEP}" in operator.get(path).content.decode()
    assert operator.post(path, {"post": "yes"}).status_code == 302
    assert list(User.objects.values_list("username", flat=True)) == ["root"]
    assert list(Conversation.objects.all()) == [kept]


def test_who_may_not_delete_all_that_would_go_deletes_nothing(client: Client) -> None:
    clerk = User.objects.create_user("clerk", password="x", is_staff=True)
    names = ("view_conversation", "delete_conversation", "delete_message")
    clerk.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(clerk)
    (row,) = many(1, 2)
    path = f"{LIST}{row.pk}/delete/"
    page = client.get(path).content.decode()
    assert "<li>generation</li>" in page
    assert "<li>message</li>" not in page
    assert client.post(path, {"post": "yes"}).status_code == 403
    assert Conversation.objects.exists()


def test_a_single_message_is_not_the_operators_to_delete(operator: Client) -> None:
    many(1, 2)
    message = Message.objects.latest("created")
    assert operator.post(f"/admin/chat/message/{message.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operator.get("/admin/chat/message/").context["cl"].result_count == 2
