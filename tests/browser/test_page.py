"""The page in Chromium, against the real server with the synthetic backend."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from llm.backends.synthetic import synthetic_text
from tests.browser.conftest import OpenPage, answer_of, ask
from tests.server import Serve, Site

TOKENS = 100
ANSWER = synthetic_text(TOKENS)


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Answers take two seconds."""
    return serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=50)


@pytest.fixture(scope="module")
def narrow(serve: Serve) -> Site:
    """One place to run, one to wait; an answer takes longer than any test."""
    return serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=1, LLM_MAX_QUEUE_SIZE=1, LLM_SYNTHETIC_TOKENS=500, LLM_SYNTHETIC_RATE=5
    )


def stats(site: Site) -> dict[str, Any]:
    with urllib.request.urlopen(f"{site.url}/stats") as answer:  # noqa: S310 our own server
        found: dict[str, Any] = json.load(answer)
    return found


def test_a_question_is_answered_as_it_is_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    expect(page.locator("#greeting")).to_be_visible()
    ask(page, "Who is\nAlan Turing?")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    assert len(answer_of(page)) < len(ANSWER)
    expect(page.locator(".question .text")).to_have_text("Who is\nAlan Turing?")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    expect(page.locator(".answer.live")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#title")).to_have_text("Who is")
    expect(page.locator("#list a")).to_have_text(["Who is"])
    expect(page.locator("#greeting")).to_be_hidden()
    assert re.fullmatch(rf"{site.url}/c/[0-9a-f-]{{36}}/", page.url)


def test_stop_keeps_what_was_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Go on")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    page.locator("#stop").click()
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    shown = answer_of(page)
    assert ANSWER.startswith(shown)
    assert len(shown) < len(ANSWER)
    page.reload()
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    assert answer_of(page) == shown


def test_a_reload_picks_a_running_answer_up_where_it_is(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    page.reload()
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)


def test_a_lost_connection_is_resumed_without_a_gap_or_a_repeat(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains about the connection
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    expect(page.locator("#status")).to_contain_text("No connection")
    page.context.set_offline(False)
    expect(page.locator("#status")).to_have_text("")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)


def test_another_tab_shows_the_same_answer(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "First")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    other = open_page(page.url, beside=page)
    expect(other.locator(".answer .text")).to_have_text([ANSWER])
    ask(page, "Second")
    expect(other.locator(".answer.live .text")).to_contain_text("1 2 3")
    other.locator("#stop").click()
    for tab in (page, other):
        expect(tab.locator(".answer .note").last).to_have_text("Stopped.")
    assert answer_of(page) == answer_of(other)


def test_two_browsers_are_answered_at_the_same_time(site: Site, open_page: OpenPage) -> None:
    pages = [open_page(site.url) for _ in range(2)]
    for page in pages:
        ask(page, "Both")
    for page in pages:
        expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    assert stats(site)["processing"] == 2
    for page in pages:
        expect(page.locator(".answer .text")).to_have_text(ANSWER)


def test_conversations_are_listed_opened_and_begun_anew(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "First topic")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    page.locator("#new").click()
    expect(page.locator("#greeting")).to_be_visible()
    ask(page, "Second topic")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    page.locator("#list a", has_text="First topic").click()
    expect(page.locator(".question .text")).to_have_text(["First topic"])
    expect(page.locator("#stop")).to_be_hidden()
    page.go_back()
    expect(page.locator(".question .text")).to_have_text(["Second topic"])
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    expect(page.locator("#list a")).to_have_text(["Second topic", "First topic"])
    expect(page.locator("#list a[aria-current]")).to_have_text("Second topic")


def test_anothers_conversation_is_not_found(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Mine")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    stranger = open_page(site.url, quiet=True)
    answer = stranger.goto(page.url)
    assert answer is not None
    assert answer.status == 404
    assert "Mine" not in stranger.content()


def test_waiting_shows_the_place_and_a_full_house_leaves_the_text(narrow: Site, open_page: OpenPage) -> None:
    running, waiting, refused = (open_page(narrow.url) for _ in range(3))
    ask(running, "First")
    expect(running.locator(".answer .text")).to_contain_text("1 2")
    ask(waiting, "Second")
    expect(waiting.locator(".answer .waiting")).to_contain_text("Waiting: 1 of 1 in line")
    ask(refused, "Third, long in the writing")
    expect(refused.locator("#problem")).to_have_text(
        re.compile(r"^Everyone is busy right now\. Your text is kept; please try again in (\d+ s|a moment)\.$")
    )
    expect(refused.locator("#text")).to_have_value("Third, long in the writing")
    expect(refused.locator(".question")).to_have_count(0)
    assert stats(narrow)["waiting"] == 1
    running.locator("#stop").click()
    expect(waiting.locator(".answer .text")).to_contain_text("1 2")
    refused.locator("#send").click()
    expect(refused.locator(".answer .waiting")).to_contain_text("Waiting: 1 of 1 in line")
    expect(refused.locator("#text")).to_have_value("")
    expect(refused.locator("#problem")).to_have_text("")
    refused.locator("#stop").click()
    waiting.locator("#stop").click()
    expect(refused.locator(".answer .note")).to_have_text("You left the queue.")
    expect(waiting.locator(".answer .note")).to_have_text("Stopped.")


def test_keys_of_the_composer(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    box = page.locator("#text")
    expect(page.locator("#send")).to_be_disabled()
    box.press_sequentially("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True, "bubbles": True})
    expect(page.locator(".question")).to_have_count(0)
    box.press("Enter")
    expect(page.locator(".question .text")).to_have_text("one\ntwo")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    box.press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")


def test_a_message_that_is_too_long_stays_in_the_box(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    for text in ("x" * 16_001, "あ" * 100_000):
        ask(page, text)
        expect(page.locator("#problem")).to_have_text("This message is too long.")
        assert page.locator("#text").input_value() == text
    ask(page, "short")
    expect(page.locator("#problem")).to_have_text("")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)


def test_conversations_survive_a_restart_and_the_page_comes_back_by_itself(serve: Serve, open_page: OpenPage) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=500, LLM_SYNTHETIC_RATE=20)
    page = open_page(site.url, quiet=True)  # the browser itself complains about the refused connections
    ask(page, "Before")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    assert site.stop() == 0
    expect(page.locator("#status")).to_contain_text("restarting")
    expect(page.locator("#problem")).to_have_text("")
    site.start()
    expect(page.locator("#status")).to_have_text("", timeout=30_000)
    expect(page.locator(".answer .note")).to_contain_text("The server stopped")
    shown = answer_of(page)
    assert synthetic_text(500).startswith(shown)
    assert shown.startswith("1 2 3")
    page.reload()
    expect(page.locator(".question .text")).to_have_text(["Before"])
    assert answer_of(page) == shown


def test_the_drawer_of_a_phone(site: Site, browser: Browser) -> None:
    page = browser.new_context(viewport={"width": 360, "height": 640}).new_page()
    page.goto(site.url)
    ask(page, "An " + "unbroken" * 40)
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(page.locator("#list a")).not_to_be_in_viewport()
    page.locator("#menu").click()
    expect(page.locator("#list a")).to_be_in_viewport()
    page.locator("#new").click()
    expect(page.locator("#list a")).not_to_be_in_viewport()
    page.context.close()


def test_an_answer_that_was_stopped_goes_on(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3 4 5")
    expect(page.locator(".answer .more")).to_be_hidden()
    page.locator("#stop").click()
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    other = open_page(page.url, beside=page)
    page.get_by_role("button", name="Continue").click()
    for each in (page, other):
        expect(each.locator(".answer .text")).to_have_text(ANSWER)
        expect(each.locator(".answer .note")).to_have_text("")
        expect(each.locator(".answer .more")).to_be_hidden()
    page.reload()
    expect(page.locator(".answer .text")).to_have_text(ANSWER)


def test_a_conversation_deleted_in_another_tab_is_left_and_can_be_had_back(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    address = page.url
    other = open_page(address, beside=page, quiet=True)  # the browser itself complains of what is not found
    expect(other.locator(".answer .text")).to_have_text(ANSWER)
    page.locator("#list button").click()
    page.get_by_role("menuitem", name="Delete").click()
    expect(page).to_have_url(f"{site.url}/")
    expect(other).to_have_url(f"{site.url}/")
    expect(other.locator("#problem")).to_have_text("This conversation no longer exists.")
    for tab in (page, other):
        expect(tab.locator("#greeting")).to_be_visible()
        expect(tab.locator("#list a")).to_have_count(0)
    for go in (page.go_back, page.go_forward):  # neither leads to what is gone
        go()
        expect(page).to_have_url(f"{site.url}/")
        expect(page.locator("#problem")).to_have_text("")
    page.get_by_role("button", name="Undo").click()
    expect(page).to_have_url(address)
    expect(page.locator(".answer .text")).to_have_text(ANSWER)
    expect(other.locator("#list a")).to_have_text(["Count"])
