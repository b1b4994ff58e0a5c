"""Where somebody comes from."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory, override_settings

from chat.accounts.views import sign_in
from chat.visitors import addresses


@pytest.mark.parametrize(
    ("client", "forwarded", "behind_proxy", "address"),
    [
        (["192.0.2.1", 5000], [], False, "192.0.2.1"),
        (["192.0.2.1", 5000], [b"198.51.100.7"], False, "192.0.2.1"),
        (["127.0.0.1", 5000], [b"198.51.100.7"], True, "198.51.100.7"),
        (["127.0.0.1", 5000], [b"203.0.113.9, 198.51.100.7"], True, "198.51.100.7"),
        (["127.0.0.1", 5000], [b"203.0.113.9", b"198.51.100.7"], True, "198.51.100.7"),
        (["127.0.0.1", 5000], [], True, "127.0.0.1"),
        (["2001:db8::1:2:3:4", 5000], [], False, "2001:db8::/64"),
        (["::ffff:192.0.2.1", 5000], [], False, "192.0.2.1"),
        (["127.0.0.1", 5000], [b"nonsense"], True, ""),
        (None, [], False, ""),
    ],
)
def test_the_address_is_the_connection_s_or_the_one_the_proxy_has_seen(
    client: list[object] | None, forwarded: list[bytes], behind_proxy: bool, address: str
) -> None:
    scope = {"client": client, "headers": [(b"x-forwarded-for", value) for value in forwarded]}
    with override_settings(BEHIND_PROXY=behind_proxy):
        assert addresses.of_scope(scope) == address
        request = RequestFactory().get(
            "/", headers={"X-Forwarded-For": b",".join(forwarded).decode()} if forwarded else {}
        )
        request.META["REMOTE_ADDR"] = client[0] if client else ""
        assert addresses.of_request(request) == address


@pytest.mark.django_db
def test_a_form_over_a_unix_socket_comes_from_nowhere_in_particular() -> None:
    request = RequestFactory().post("/account/sign-in/", {"username": "ada", "password": "no"})
    del request.META["REMOTE_ADDR"]
    assert addresses.of_request(request) == ""
    request.session, request.user = SessionStore(), AnonymousUser()
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
    assert sign_in(request).status_code == 200
