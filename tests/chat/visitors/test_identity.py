"""Who a visitor is: pages, sessions, accounts."""

from __future__ import annotations

from datetime import date, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import AsyncClient, Client

from chat.history.history import History
from chat.history.values import Caller
from chat.models import Conversation, Generation, Visitor
from chat.visitors import identity
from tests.chat.conftest import again, question

pytestmark = pytest.mark.django_db(transaction=True)


def visit(client: Client, path: str = "/") -> UUID:
    again(client)
    assert client.get(path).status_code == 200
    return UUID(client.session["visitor"])


def accept(history: History, visitor: UUID, **fields: object) -> UUID:
    return async_to_sync(history.accept)(question(Caller(visitor), **fields)).conversation


def test_a_page_makes_a_visitor_known_without_a_row(client: Client) -> None:
    visitor = visit(client)
    assert visit(client) == visitor
    assert visit(Client()) != visitor
    assert not Visitor.objects.exists()
    cookie = client.cookies["sessionid"]
    assert cookie["max-age"] == 365 * 24 * 60 * 60
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_a_page_without_a_cookie_makes_no_session_and_says_so(client: Client) -> None:
    """Of a crawler each page would be a row. Its first answer has a cookie; who sends that back is a browser."""
    for _ in range(3):
        answer = Client().get("/")
        assert set(answer.cookies) == {"csrftoken"}
        assert 'data-session="none"' in answer.content.decode()
    assert not Session.objects.exists()
    first, second = client.get("/"), client.get("/")
    assert set(first.cookies) == {"csrftoken"}
    assert "sessionid" in second.cookies
    assert "data-session" not in second.content.decode()
    assert Session.objects.count() == 1


def test_a_session_lives_on_from_each_day_of_a_visit(client: Client) -> None:
    visit(client)
    assert "sessionid" not in client.get("/").cookies
    session = client.session
    session["visited"] = (date.today() - timedelta(days=1)).isoformat()
    session.save()
    assert "sessionid" in client.get("/").cookies


def test_the_page_of_a_conversation_is_its_visitors(client: Client, history: History) -> None:
    conversation = accept(history, visit(client))
    visit(client, f"/c/{conversation}/")
    assert Client().get(f"/c/{conversation}/").status_code == 404
    assert client.get(f"/c/{uuid4()}/").status_code == 404
    assert client.get("/c/1/").status_code == 404


def test_signing_in_makes_the_browsers_visitor_the_accounts(client: Client, history: History) -> None:
    visitor = visit(client)
    conversation = accept(history, visitor, request_id="f")
    user = User.objects.create_user("ada", password="x")
    client.force_login(user)
    assert visit(client, f"/c/{conversation}/") == visitor
    assert Visitor.objects.get(user=user).pk == visitor
    assert Generation.objects.get().request_id == "f"


def test_signing_in_before_the_first_message_keeps_the_open_pages_visitor(client: Client) -> None:
    visitor = visit(client)
    client.force_login(User.objects.create_user("ada", password="x"))
    assert visit(client) == visitor


def test_signing_in_elsewhere_hands_the_rows_to_the_account(client: Client, history: History) -> None:
    user = User.objects.create_user("ada", password="x")
    client.force_login(user)
    account = visit(client)
    accept(history, account, request_id="f")

    other = Client()
    anonymous = visit(other)
    accept(history, anonymous, request_id="f")
    other.force_login(user)
    assert visit(other) == account
    assert Conversation.objects.filter(visitor=account).count() == 2
    assert sorted(Generation.objects.values_list("request_id", flat=True), key=str) == [None, "f"]
    accept(history, anonymous, request_id="g")  # by a socket that is still the browser's
    assert Conversation.objects.filter(visitor=account).count() == 3
    assert set(Generation.objects.values_list("visitor", flat=True)) == {account}


def test_what_is_asked_first_in_the_moment_of_a_sign_in_is_the_accounts(client: Client, history: History) -> None:
    user = User.objects.create_user("ada", password="x")
    client.force_login(user)
    account = visit(client)
    other = Client()
    anonymous = visit(other)
    other.force_login(user)
    for _ in range(2):  # and the frame may come twice
        accept(history, anonymous, request_id="f")
    assert Conversation.objects.get().visitor_id == account
    assert visit(other) == account


def test_what_a_browser_was_told_is_accepted_stays_so_when_it_signs_in(client: Client, history: History) -> None:
    user = User.objects.create_user("ada", password="x")
    client.force_login(user)
    account = visit(client)
    other = Client()
    conversation = accept(history, visit(other), request_id="f")
    other.force_login(user)
    assert accept(history, account, request_id="f") == conversation  # its reply was lost, so the frame comes again
    assert Generation.objects.count() == 1


def test_a_browser_whose_sign_in_was_not_kept_becomes_no_other_account(client: Client, history: History) -> None:
    ada, bob = (User.objects.create_user(name, password="x") for name in ("ada", "bob"))
    client.force_login(ada)
    visit(client)
    other = Client()
    visit(other)
    identity.signed_in(request=SimpleNamespace(session=other.session), user=ada)  # whose session is then not stored
    other.force_login(bob)
    account = visit(other)
    accept(history, account)
    assert Visitor.objects.get(user=bob).pk == Conversation.objects.get().visitor_id == account


def test_signing_out_leaves_the_account_and_another_account_gets_nothing(client: Client, history: History) -> None:
    ada, bob = (User.objects.create_user(name, password="x") for name in ("ada", "bob"))
    client.force_login(ada)
    account = visit(client)
    accept(history, account)
    client.logout()
    assert visit(client) != account
    client.force_login(ada)
    assert visit(client) == account
    client.force_login(bob)
    assert visit(client) != account
    assert Conversation.objects.get().visitor_id == account


def test_an_account_without_a_visit_gets_its_visitor_with_the_page(client: Client) -> None:
    user = User.objects.create_user("ada", password="x")
    client.force_login(user)
    session = client.session
    del session["visitor"]
    session.save()
    assert visit(client) == Visitor.objects.get(user=user).pk


async def test_the_page_and_its_headers() -> None:
    answer = await AsyncClient().get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "trusted-types 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "same-origin"
    assert "no-store" in answer.headers["Cache-Control"]
    page = answer.content.decode()
    assert "<script>" not in page
    assert "style=" not in page
    assert "onclick" not in page
