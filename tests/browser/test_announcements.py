"""What a screen reader is told: where things are, short sentences on the way, the whole answer once at its end."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from llm.backends.synthetic import synthetic_text
from tests.browser.conftest import PHONE, OpenPage, ask, echo
from tests.server import Serve, Site

TOKENS = 150

LISTEN = """() => {
  window.heard = [];
  const note = (region) => window.heard.push([region.getAttribute("role"), region.textContent.trim()]);
  for (const region of document.querySelectorAll("[role=status], [role=alert], [role=log], [aria-live]"))
    new MutationObserver(() => note(region)).observe(region, { childList: true, characterData: true, subtree: true });
}"""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Answers take three seconds."""
    return serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=50)


def heard(page: Page) -> list[list[str]]:
    told: list[list[str]] = page.evaluate("window.heard.filter(([, text]) => text)")
    return told


def test_an_answer_is_read_out_once_and_whole(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    expect(page.locator("#model")).not_to_be_empty()
    page.evaluate(LISTEN)
    ask(page, "Count")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    expect(page.locator(".answer.live")).to_have_attribute("aria-busy", "true")
    expect(page.locator(".answer:not(.live) .text")).to_have_text(synthetic_text(TOKENS))
    expect(page.locator(".answer")).to_have_attribute("aria-busy", "false")
    log = [text for role, text in heard(page) if role == "log"]
    assert log == [synthetic_text(TOKENS)]
    assert len(heard(page)) < 6, "nothing is said for each token"
    assert ["status", "The answer is being written."] in heard(page)
    assert page.locator("#thread").locator("xpath=ancestor-or-self::*[@aria-live or @role='log']").count() == 0


def test_an_answer_is_read_out_as_it_is_shown(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.evaluate(LISTEN)
    echo(page, "A **bold** word and `code`")
    expect(page.get_by_role("log")).to_have_text("A bold word and code")
    page.reload()
    expect(page.locator(".answer .text")).to_have_text("A bold word and code")
    expect(page.get_by_role("log")).to_have_text("")  # what was there before is not news


def test_how_it_ended_and_what_went_wrong_is_said(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.evaluate(LISTEN)
    ask(page, "Count")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    page.keyboard.press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    expect(page.locator("#announced-status")).to_have_text("Stopped.")
    ask(page, "x" * 20_000)
    expect(page.locator("#problem")).to_have_text("This message is too long.")
    assert ["alert", "This message is too long."] in heard(page)
    page.locator("#text").fill("")
    ask(page, "/fail")
    expect(page.locator("#announced-status")).to_contain_text("Something went wrong")


def test_the_page_has_a_map(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    for role, name in (
        ("complementary", "Conversations"),
        ("navigation", "Your conversations"),
        ("region", "Conversation"),
        ("article", "Your message"),
        ("article", "Answer"),
        ("textbox", "Message"),
    ):
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=1)).to_have_text("/echo Hello")
    expect(page.get_by_role("main")).to_have_count(1)
    expect(page.get_by_role("heading", level=2)).to_have_text("Today")


def test_the_focus_stays_in_the_thread_when_what_had_it_goes(site: Site, open_page: OpenPage) -> None:
    """On a phone, where no box takes the focus unasked, so that no keyboard opens."""
    page = open_page(site.url, viewport=PHONE, has_touch=True, is_mobile=True)
    echo(page, "Hello")
    page.get_by_role("button", name="Answer again").press("Enter")
    expect(page.locator(".answer .which")).to_have_text("2 / 2")
    expect(page.locator(".answer")).to_be_focused()
    expect(page.locator(".answer:not(.live)")).to_have_count(1)
    for pressed, focused, which in (("before", "after", "1 / 2"), ("after", "before", "2 / 2")):
        page.get_by_role("button", name=f"Version {pressed}").press("Enter")
        expect(page.locator(".answer .which")).to_have_text(which)
        expect(page.get_by_role("button", name=f"Version {focused}")).to_be_focused()
    ask(page, "Count")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    page.locator("#stop").press("Enter")
    page.get_by_role("button", name="Continue").press("Enter")
    expect(page.locator(".answer").last).to_be_focused()
