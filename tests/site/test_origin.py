"""Which pages may open a socket here."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.core.handlers.asgi import ASGIRequest
from django.test import Client, override_settings

from chatsite.origin import OriginCheck, allowed


def headers(host: str, origin: str | None, **others: str) -> list[tuple[bytes, bytes]]:
    found = {"host": host} | ({} if origin is None else {"origin": origin})
    found |= {name.replace("_", "-"): value for name, value in others.items()}
    return [(name.encode(), value.encode()) for name, value in found.items()]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("LOCALHOST:8000", "http://localhost:8000"),
    ],
)
def test_a_page_of_this_site_may(host: str, origin: str) -> None:
    assert allowed(headers(host, origin))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", None),
        ("localhost:8000", ""),
        ("localhost:8000", "null"),
        ("localhost:8000", "file://"),
        ("localhost:8000", "http://localhost:8001"),
        ("localhost:8000", "https://localhost:8000"),
        ("localhost:8000", "http://localhost"),
        ("localhost:8000", "http://localhost.evil.example:8000"),
        ("localhost:8000", "http://evil.example"),
        ("localhost:8000", "http://evil@localhost:8000"),
        ("localhost:8000", "http://["),
        ("localhost:8000", "http://localhost:8000evil"),
        ("evil.example", "http://evil.example"),  # a name that leads here, and is its own origin
        ("", "http://"),
    ],
)
def test_any_other_page_may_not(host: str, origin: str | None) -> None:
    assert not allowed(headers(host, origin))


def test_the_scheme_of_a_proxy_counts_only_behind_one() -> None:
    page = headers("localhost", "https://localhost", x_forwarded_proto="https")
    assert not allowed(page)
    with override_settings(BEHIND_PROXY=True):
        assert allowed(page)
        assert not allowed(headers("localhost", "http://localhost", x_forwarded_proto="https"))


@pytest.mark.parametrize(
    "values", [["https"], ["https,http"], ["https, http"], ["http,https"], ["https", "http"], ["HTTPS"], [""], []]
)
def test_what_several_proxies_say_counts_as_it_does_for_pages(values: list[str]) -> None:
    proxy = override_settings(BEHIND_PROXY=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"))
    forwarded = [(b"x-forwarded-proto", value.encode()) for value in values]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": forwarded}
    with proxy:
        scheme = ASGIRequest(scope, BytesIO()).scheme
        assert allowed([*headers("localhost", f"{scheme}://localhost"), *forwarded])
        other = {"http": "https", "https": "http"}[scheme or ""]
        assert not allowed([*headers("localhost", f"{other}://localhost"), *forwarded])


@override_settings(CHAT_ORIGINS="https://chat.example.org, http://other.example:81")
def test_further_origins_are_taken_as_they_are_written() -> None:
    assert allowed(headers("localhost:8000", "https://chat.example.org"))
    assert allowed(headers("localhost:8000", "http://other.example:81"))
    assert not allowed(headers("localhost:8000", "http://chat.example.org"))
    assert not allowed(headers("localhost:8000", "http://other.example"))


async def test_a_refused_page_is_told_by_a_close_code_and_the_operator_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    communicator = WebsocketCommunicator(
        OriginCheck(never), "/ws/chat/", headers("localhost", f"http://evil.example/{'a' * 9_000}")
    )
    assert (await communicator.connect())[0]
    assert await communicator.receive_output() == {"type": "websocket.close", "code": 4403}
    (line,) = caplog.messages
    assert "http://evil.example" in line
    assert "CHAT_ORIGINS" in line
    assert len(line) < 1_000


@pytest.mark.django_db
@override_settings(
    BEHIND_PROXY=True,
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    CHAT_ORIGINS="https://localhost:8443",
    CSRF_TRUSTED_ORIGINS=["https://localhost:8443"],  # chatsite.settings does so
)
def test_behind_a_proxy_that_strips_the_port_pages_may_send_forms_too() -> None:
    page = {"Host": "localhost", "Origin": "https://localhost:8443", "X-Forwarded-Proto": "https,http"}
    assert allowed([(name.lower().encode(), value.encode()) for name, value in page.items()])
    browser = Client(enforce_csrf_checks=True, headers=page)
    browser.get("/account/sign-in/")
    form = {"csrfmiddlewaretoken": browser.cookies["csrftoken"].value, "username": "ada", "password": "no"}
    assert browser.post("/account/sign-in/", form).status_code == 200
    elsewhere = Client(enforce_csrf_checks=True, headers=page | {"Origin": "https://localhost:8444"})
    elsewhere.cookies = browser.cookies
    assert elsewhere.post("/account/sign-in/", form).status_code == 403
