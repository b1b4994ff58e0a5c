"""What somebody sees when a request cannot be served, most of it without a database."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any, NoReturn
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpResponse
from django.test import AsyncClient, override_settings

from chat import failures
from chat.accounts.attempts import attempts

pytestmark = pytest.mark.usefixtures("compiled")

ENGLISH = {"accept_language": "de,en;q=0.5"}
JAPANESE = {"accept_language": "ja,en;q=0.5"}
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def browser() -> AsyncClient:
    """A browser whose session is not known here, nor is its token for forms."""
    browser = AsyncClient(enforce_csrf_checks=True, raise_request_exception=False)
    browser.cookies["sessionid"] = browser.cookies["csrftoken"] = "x" * 32
    return browser


async def ask(browser: AsyncClient, what: str, path: str, **headers: str) -> HttpResponse:
    """Make a request that fails in this way, whatever the path is."""
    match what:
        case "host":
            return await browser.get(path, headers={**headers, "host": "elsewhere.example"})
        case "token":
            return await browser.post(path, {}, headers=headers)
        case "fields":
            return await browser.post(path, {f"a{number}": "b" for number in range(1_001)}, headers=headers)
        case "bytes":
            return await browser.generic("POST", path, b"a=" + b"b" * 3_000_000, FORM, headers=headers)
        case _:
            return await browser.get(path, headers=headers)


PAGES = [
    ("host", "/nowhere", 400, "This could not be understood", "リクエストを理解できませんでした"),
    ("token", "/account/sign-out/", 403, "This page is out of date", "このページは古くなっています"),
    ("fields", "/account/sign-in/", 413, "Too large", "大きすぎます"),
    ("bytes", "/account/sign-in/", 413, "Too large", "大きすぎます"),
    ("path", "/nowhere", 404, "Not found", "見つかりません"),
    ("database", "/", 500, "Something went wrong", "問題が発生しました"),
]
"""Each way to fail, an address, and what is said; a database that is asked raises, as tests without one do."""


@pytest.mark.parametrize(("what", "path", "status", "english", "japanese"), PAGES)
async def test_a_page_says_in_the_visitors_language_what_went_wrong(
    browser: AsyncClient, what: str, path: str, status: int, english: str, japanese: str
) -> None:
    for headers, language, title in ((ENGLISH, "en", english), (JAPANESE, "ja", japanese)):
        answer = await ask(browser, what, path, **headers)
        page = answer.content.decode()
        assert (answer.status_code, answer["Content-Type"]) == (status, "text/html; charset=utf-8")
        assert f'<html lang="{language}"' in page
        assert f"<h1>{title}</h1>" in page
        assert f"<title>{title}</title>" in page
        assert "sessionid" not in answer.cookies
        keeps_the_policy(answer)


async def test_the_switch_of_the_language_counts_for_failures_too(browser: AsyncClient) -> None:
    browser.cookies["django_language"] = "ja"
    for what, path, *_, japanese in PAGES:
        assert japanese in (await ask(browser, what, path, **ENGLISH)).content.decode()


class Tags(HTMLParser):
    """What a page loads, and what in it a policy without inline scripts and styles would not let through."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loaded += [str(given[name]) for name in ("src", "href") if name in given and tag != "a"]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def keeps_the_policy(answer: HttpResponse) -> None:
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    tags = Tags(answer.content.decode())
    assert len(tags.loaded) >= 3
    assert all(path.startswith("/static/") for path in tags.loaded)
    assert tags.inline == []


async def test_a_stale_form_leads_back_to_its_page_and_nowhere_else(browser: AsyncClient) -> None:
    def link(answer: HttpResponse) -> list[str]:
        return re.findall(r'<a href="([^"]+)">Load the page again</a>', answer.content.decode())

    for came_from, leads_to in (
        ("http://testserver/c/1/?a=b", ["http://testserver/c/1/?a=b"]),
        ("http://elsewhere.example/", []),
        ("javascript:alert(1)", []),
        ("", []),
    ):
        assert link(await ask(browser, "token", "/language/", referer=came_from)) == leads_to


API = f"/api/conversations/{uuid4()}/restore/"


@pytest.mark.parametrize(
    ("what", "path", "status", "code"),
    [
        ("host", API, 400, "invalid_request"),
        ("token", API, 403, "forbidden"),
        ("fields", API, 413, "too_large"),
        ("bytes", API, 413, "too_large"),
        ("path", "/api/nowhere/", 404, "not_found"),
        ("database", "/api/conversations/", 500, "error"),
    ],
)
async def test_the_api_says_it_in_json(browser: AsyncClient, what: str, path: str, status: int, code: str) -> None:
    answer = await ask(browser, what, path, **JAPANESE, accept="text/html")
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/json")
    said = json.loads(answer.content)
    assert (said["code"], "。" in said["message"]) == (code, False)


async def test_who_takes_json_alone_gets_it_everywhere(browser: AsyncClient) -> None:
    answer = await browser.get("/nowhere", headers={"accept": "application/json"})
    assert json.loads(answer.content)["code"] == "not_found"
    for anything in ("*/*", "text/html,application/xhtml+xml,*/*;q=0.8"):
        assert b"<h1>" in (await browser.get("/nowhere", headers={"accept": anything})).content


async def test_while_the_database_is_away_the_api_says_that_it_is_unavailable(
    browser: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Any) -> NoReturn:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", away)
    answer = await browser.get("/api/conversations/")
    assert (answer.status_code, json.loads(answer.content)["code"]) == (503, "unavailable")
    assert "<h1>Something went wrong</h1>" in (await browser.get("/")).content.decode()


async def test_where_no_page_can_be_drawn_there_are_words(
    browser: AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> NoReturn:
        raise ValueError("Missing staticfiles manifest entry for 'chat/css/base.css'")

    monkeypatch.setattr(failures, "render_to_string", missing)
    answer = await browser.get("/nowhere")
    assert (answer.status_code, answer["Content-Type"]) == (500, "text/plain; charset=utf-8")
    assert answer.content.decode() == "Something went wrong. The site could not answer. Please try again in a moment.\n"
    assert "Missing staticfiles manifest entry" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_who_may_not_is_told_so(browser: AsyncClient) -> None:
    clerk = await User.objects.acreate_user("clerk", password="x", is_staff=True)
    await browser.aforce_login(clerk)
    for headers, said in ((ENGLISH, "This is not allowed"), (JAPANESE, "許可されていません")):
        answer = await ask(browser, "permission", "/admin/chat/conversation/", **headers)
        assert answer.status_code == 403
        assert f"<h1>{said}</h1>" in answer.content.decode()
        keeps_the_policy(answer)


@pytest.mark.parametrize("path", ["/account/sign-in/", "/admin/login/"])
@override_settings(CHAT_SIGN_INS_PER_MINUTE="1")
@pytest.mark.django_db(transaction=True)
async def test_too_many_attempts_are_refused_in_both_languages(path: str) -> None:
    cache.clear()
    attempts.cache_clear()
    browser = AsyncClient()
    await browser.post(path, {"username": "ada", "password": "wrong"})
    for headers, said in ((ENGLISH, "Too many attempts"), (JAPANESE, "試行回数が多すぎます")):
        answer = await browser.post(path, {"username": "ada", "password": "wrong"}, headers=headers)
        assert answer.status_code == 429
        assert int(answer["Retry-After"]) > 0
        assert f"<h1>{said}</h1>" in answer.content.decode()
        keeps_the_policy(answer)
