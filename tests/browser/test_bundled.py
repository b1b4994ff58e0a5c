"""The page with the bundled model: what a visitor of a fresh installation sees, and the README's pictures of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, OpenPage, answer_of, ask
from tests.server import ROOT, Serve, Site

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

QUESTIONS = ("Name three colours.", "海はなぜ青いのですか。", "Plan a quiet weekend in a small town by the sea.")


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(models=ROOT / "var" / "test-cache" / "models", LLM_BACKEND="local", LLM_MAX_NEW_TOKENS=300)


def greedy(page: Page, longest: int) -> None:
    """The likeliest words for the conversation that begins now."""
    page.locator("#settings-button").click()
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Longest answer").fill(str(longest))
    page.locator("#settings").get_by_role("button", name="Save").click()
    expect(page.locator("#settings")).to_be_hidden()


def answered(page: Page) -> str:
    expect(page.locator(".answer:not(.live) .figures").last).not_to_be_empty(timeout=120_000)
    return answer_of(page)


def test_a_fresh_installation_answers(site: Site, open_page: OpenPage, folder: Path) -> None:
    page = open_page(site.url, viewport=DESKTOP, reduced_motion="reduce")
    expect(page.locator("#model")).to_contain_text("SmolLM2")
    for question in QUESTIONS:
        greedy(page, 8)
        ask(page, question)
        answered(page)
        page.locator("#new").click()
    greedy(page, 300)
    ask(page, "Write a Python function that adds up the numbers of a list.")
    expect(page.locator(".answer.live .text")).not_to_be_empty()
    assert "def" in answered(page)
    expect(page.locator(".figures")).to_have_text(
        re.compile(r"^\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ s · .*SmolLM2")
    )
    expect(page.locator("#list a")).to_have_count(4)
    page.mouse.move(0, 0)
    page.locator("#scroller").evaluate("scroller => scroller.scrollTo(0, 0)")
    page.screenshot(path=folder / "bundled.png")
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=folder / "bundled-dark.png")
    phone = open_page(page.url, beside=page)
    phone.set_viewport_size(PHONE)
    expect(phone.locator(".answer .figures")).not_to_be_empty()
    phone.screenshot(path=folder / "bundled-phone.png")
    phone.locator("#menu").click()
    expect(phone.locator("#new")).to_be_focused()
    phone.screenshot(path=folder / "bundled-phone-drawer.png")


def test_an_answer_is_stopped_and_goes_on(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    greedy(page, 120)
    ask(page, "Count from one to twenty.")
    expect(page.locator(".answer.live .text")).to_contain_text(re.compile("[0-9a-z]"), timeout=60_000)
    page.keyboard.press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    shown = answer_of(page)
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#stop")).to_be_visible()
    assert answered(page).startswith(shown)
