"""Accounts, as a browser without scripts sees them."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings

from chat.accounts.attempts import attempts
from chat.history.history import History
from chat.history.values import Caller
from chat.models import Visitor
from tests.chat.conftest import Connect, again, question

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quick_passwords")]

PASSWORD = "a long walk by the sea"


@pytest.fixture
def quick_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    attempts.cache_clear()


def ask(client: Client, history: History, text: str = "Hello") -> UUID:
    again(client)
    client.get("/")
    visitor = Caller(UUID(client.session["visitor"]))
    return async_to_sync(history.accept)(question(visitor, text)).conversation


def listed(client: Client) -> list[str]:
    async def fetched() -> Any:
        browser = AsyncClient()
        browser.cookies = client.cookies
        return await browser.get("/api/conversations/")

    answer = async_to_sync(fetched)()
    return [item["id"] for item in answer.json()["conversations"]] if answer.status_code == 200 else answer.json()


def post(client: Client, path: str, **fields: str) -> HttpResponse:
    """With the token of the form that is on the page."""
    page = client.get(path).content.decode()
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
    assert token is not None
    return client.post(path, {"csrfmiddlewaretoken": token[1], **fields})  # type: ignore[return-value]


def sign_in(client: Client, name: str = "ada", password: str = PASSWORD, **fields: str) -> HttpResponse:
    return post(client, "/account/sign-in/", username=name, password=password, **fields)


def sign_up(client: Client, name: str = "ada", password: str = PASSWORD, **fields: str) -> HttpResponse:
    return post(client, "/account/sign-up/", username=name, password1=password, password2=password, **fields)


@pytest.fixture
def client() -> Client:
    return Client(enforce_csrf_checks=True)


def test_a_new_account_keeps_what_was_asked_before(client: Client, history: History) -> None:
    conversation = ask(client, history)
    answer = sign_up(client)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert listed(client) == [str(conversation)]
    assert Visitor.objects.get().user == User.objects.get(username="ada")

    assert client.post("/account/sign-out/").status_code == 403
    assert post(client, "/account/", **{}).status_code == 200  # an empty form changes nothing
    token = re.search(r'value="(\w{64})"', client.get("/account/").content.decode())
    assert token is not None
    assert client.post("/account/sign-out/", {"csrfmiddlewaretoken": token[1]}).status_code == 302
    client.get("/")
    assert listed(client) == []

    elsewhere = Client(enforce_csrf_checks=True)
    other = ask(elsewhere, history, "From another browser")
    assert sign_in(elsewhere).status_code == 302
    assert sorted(listed(elsewhere)) == sorted([str(conversation), str(other)])


def test_wrong_entries_say_so_and_change_nothing(client: Client) -> None:
    assert "errorlist" in sign_up(client, password="12345678").content.decode()
    assert "errorlist" in sign_up(client, name="nul\0").content.decode()
    assert "errorlist" in sign_up(client, name="x" * 151).content.decode()
    assert not User.objects.exists()
    User.objects.create_user("ada", password=PASSWORD)
    assert "errorlist" in sign_up(client, name="ADA").content.decode()
    assert "errorlist" in sign_in(client, password="wrong").content.decode()
    assert "_auth_user_id" not in client.session


def test_a_name_that_is_taken_meanwhile_is_an_error_of_the_form(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    valid = UserCreationForm.is_valid

    def taken_since(form: UserCreationForm) -> bool:
        found = valid(form)
        User.objects.create_user("ada", password=PASSWORD)
        return found

    monkeypatch.setattr(UserCreationForm, "is_valid", taken_since)
    assert "errorlist" in sign_up(client).content.decode()
    assert User.objects.count() == 1


def test_another_password_signs_other_browsers_out(client: Client) -> None:
    sign_up(client)
    other = Client(enforce_csrf_checks=True)
    assert sign_in(other).status_code == 302
    new = {"new_password1": "a walk in the hills", "new_password2": "a walk in the hills"}
    assert "errorlist" in post(client, "/account/", old_password="wrong", **new).content.decode()
    assert post(client, "/account/", old_password=PASSWORD, **new).status_code == 302
    assert "Your password was changed." in client.get("/account/").content.decode()
    assert other.get("/account/").status_code == 302
    assert sign_in(other).status_code == 200
    assert sign_in(other, password="a walk in the hills").status_code == 302


def test_after_signing_in_one_is_where_one_wanted_to_be(client: Client) -> None:
    User.objects.create_user("ada", password=PASSWORD)
    wanted = client.get("/account/")["Location"]
    assert wanted == "/account/sign-in/?next=/account/"
    assert 'name="next" value="/account/"' in client.get(wanted).content.decode()
    assert sign_in(client, next="https://elsewhere.example/")["Location"] == "/"
    assert Client().post("/account/sign-up/", {"next": "//elsewhere.example/"}).status_code == 200


@override_settings(CHAT_SIGN_UP="0")
def test_where_accounts_are_made_by_the_operator_nobody_signs_up(client: Client) -> None:
    assert client.get("/account/sign-up/").status_code == 404
    assert client.post("/account/sign-up/").status_code in (403, 404)
    assert "/account/sign-up/" not in client.get("/account/sign-in/").content.decode()


@override_settings(CHAT_LOGIN_REQUIRED="1")
def test_where_an_account_is_required_nothing_is_seen_without_one(client: Client) -> None:
    for path in ("/", "/c/7b51a3ac-9dd2-4a3c-9b8e-4fb6b8a40a11/"):
        answer = client.get(path)
        assert (answer.status_code, answer["Location"]) == (302, f"/account/sign-in/?next={path}")
    assert "visitor" not in client.session
    assert listed(client) == {"code": "no_session", "message": "Your session has ended. Load the page again."}
    assert client.get("/account/sign-up/").status_code == 404  # unless CHAT_SIGN_UP says otherwise
    with override_settings(CHAT_SIGN_UP="1"):
        assert sign_up(client).status_code == 302
    assert client.get("/").status_code == 200
    assert listed(client) == []


async def test_a_session_from_before_an_account_was_required_is_nobodys(
    connect: Connect, visitor: Caller, history: History
) -> None:
    conversation = (await history.accept(question(visitor, "Hello"))).conversation
    browser = AsyncClient()
    session = await browser.asession()
    session["visitor"] = str(visitor.visitor)
    await session.asave()
    assert (await browser.get(f"/api/conversations/{conversation}/")).status_code == 200
    with override_settings(CHAT_LOGIN_REQUIRED="1"):
        for path in (f"/api/conversations/{conversation}/", f"/c/{conversation}/export.md"):
            assert (await browser.get(path)).status_code == 401
        async with connect(visitor) as socket:
            assert (await socket.next())["code"] == "no_session"
            assert await socket.communicator.receive_output() == {"type": "websocket.close", "code": 4401}


@override_settings(CHAT_SIGN_INS_PER_MINUTE="3")
def test_only_failures_count_and_too_many_are_refused(client: Client) -> None:
    User.objects.create_user("ada", password=PASSWORD, is_staff=True)
    for _ in range(4):
        assert sign_in(client).status_code == 302
        client = Client(enforce_csrf_checks=True)
    for _ in range(3):
        assert sign_in(client, password="wrong").status_code == 200
    refused = sign_in(client)
    assert refused.status_code == 429
    assert 0 < int(refused["Retry-After"]) <= 60
    assert "Please try again in" in refused.content.decode()
    assert post(client, "/admin/login/", username="ada", password=PASSWORD).status_code == 429
    assert sign_in(Client(REMOTE_ADDR="192.0.2.7")).status_code == 302


@override_settings(CHAT_SIGN_INS_PER_MINUTE="2")
def test_new_accounts_count_too() -> None:
    made = [sign_up(Client(), name=f"visitor{number}").status_code for number in range(3)]
    assert made == [302, 302, 429]


@override_settings(CHAT_SIGN_INS_PER_MINUTE="0")
def test_zero_is_no_limit(client: Client) -> None:
    assert {sign_in(client, password="wrong").status_code for _ in range(12)} == {200}


def test_attempts_count_here_while_redis_is_away(client: Client, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    settings.CHAT_SIGN_INS_PER_MINUTE = "1"
    assert [sign_in(client, password="wrong").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize("path", ["/account/sign-in/", "/account/sign-up/"])
def test_pages_obey_the_content_security_policy(client: Client, path: str) -> None:
    page = client.get(path).content.decode()
    assert "style=" not in page
    assert "<script" not in page
    assert re.search(r"\son\w+=", page) is None
