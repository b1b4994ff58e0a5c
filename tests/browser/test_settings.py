"""How the answers of a conversation are made: the panel with its settings, and temporary chats."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, ask
from tests.server import Serve, Site


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Answers have a hundred tokens at most, and would have two hundred."""
    return serve(LLM_SYNTHETIC_TOKENS=200, LLM_SYNTHETIC_RATE=500, LLM_MAX_NEW_TOKENS=100)


def stored(page: Page) -> dict[str, object]:
    """The settings of the open conversation, as the server has them."""
    conversation = page.url.rstrip("/").rsplit("/", 1)[1]
    found = page.evaluate("id => fetch(`/api/conversations/${id}/`).then((found) => found.text())", conversation)
    settings: dict[str, object] = json.loads(found)["settings"]
    return settings


def open_settings(page: Page) -> None:
    page.locator("#settings-button").click()
    expect(page.locator("#settings")).to_be_visible()


def save(page: Page) -> None:
    page.locator("#settings").get_by_role("button", name="Save").click()


def test_settings_hold_for_the_answers_that_follow(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    open_settings(page)
    page.locator("[name=system]").fill("Be brief.\nBe kind.")
    page.locator("[name=max_new_tokens]").fill("7")
    page.locator("[name=temperature]").fill("0.25")
    page.locator("[name=stop]").fill("END\n\n###")
    save(page)
    expect(page.locator("#settings")).to_be_hidden()
    page.reload()  # what a new conversation is to be stays with its draft
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_have_text("1 2 3 4 5 6 7")
    expect(page.locator(".answer .note")).to_have_text("Cut at the longest answer allowed.")
    wanted = {"system": "Be brief.\nBe kind.", "max_new_tokens": 7, "temperature": 0.25, "stop": ["END", "###"]}
    assert stored(page) == wanted
    other = open_page(page.url, beside=page)
    expect(other.locator("#settings-button")).to_have_class("icon-button set")
    open_settings(other)
    expect(other.locator("[name=stop]")).to_have_value("END\n###")
    expect(other.locator("[name=temperature]")).to_have_value("0.25")
    other.get_by_role("button", name="Defaults").click()
    expect(other.locator("[name=stop]")).to_have_value("")
    other.locator("[name=max_new_tokens]").fill("3")
    save(other)
    expect(other.locator("#settings")).to_be_hidden()
    assert stored(other) == {"max_new_tokens": 3}
    ask(other, "Again")
    expect(other.locator(".answer .text").last).to_have_text("1 2 3")
    page.locator("#new").click()
    expect(page.locator("#settings-button")).to_have_class("icon-button")


def test_what_the_panel_does_not_show_stays(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Count")
    expect(page.locator(".answer:not(.live)")).to_have_count(1)
    page.evaluate(
        """() => fetch(`/api/conversations/${location.pathname.split("/")[2]}/`, {
          method: "PATCH",
          headers: { "X-CSRFToken": document.cookie.match(/csrftoken=([^;]*)/)[1] },
          body: JSON.stringify({ settings: { min_p: 0.25, top_k: 5 } }),
        })"""
    )
    expect(page.locator("#settings-button")).to_have_class("icon-button set")
    open_settings(page)
    page.get_by_role("button", name="Defaults").click()
    page.locator("[name=max_new_tokens]").fill("7")
    save(page)
    expect(page.locator("#settings")).to_be_hidden()
    assert stored(page) == {"min_p": 0.25, "max_new_tokens": 7}


def test_what_is_not_set_shows_what_holds_then(site: Site, open_page: OpenPage) -> None:
    for language, words in (("en", "Default (%s)"), ("ja", "既定（%s）")):
        page = open_page(site.url, locale=language)
        expect(page.locator("#model")).to_have_text("synthetic")
        open_settings(page)
        for name, value in (("temperature", "0.7"), ("top_p", "0.95"), ("top_k", "0"), ("max_new_tokens", "100")):
            expect(page.locator(f"[name={name}]")).to_have_attribute("placeholder", words % value)
            expect(page.locator(f"[name={name}]")).to_have_value("")


def test_what_is_out_of_range_is_said_at_its_field(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    open_settings(page)
    expect(page.locator("#about-max_new_tokens")).to_contain_text("At most 100.")
    for name, value in (("temperature", "5.5"), ("max_new_tokens", "101"), ("top_k", "1.5"), ("top_p", "0")):
        page.locator(f"[name={name}]").fill(value)
    page.locator("[name=stop]").fill("\n".join("abcdefghi"))
    save(page)
    expect(page.locator("#wrong-temperature")).to_have_text("A number from 0 to 5.")
    expect(page.locator("#wrong-max_new_tokens")).to_have_text("A whole number from 1 to 100.")
    expect(page.locator("#wrong-top_k")).to_have_text("A whole number from 0 to 1000.")
    expect(page.locator("#wrong-top_p")).to_have_text("A number from 0.01 to 1.")
    expect(page.locator("#wrong-stop")).to_have_text("8 lines at most, of at most 100 characters each.")
    expect(page.locator("[name=temperature]")).to_be_focused()
    expect(page.locator("[name=temperature]")).to_have_attribute("aria-invalid", "true")
    page.locator("[name=temperature]").fill("5")
    expect(page.locator("#wrong-temperature")).to_have_text("")
    page.get_by_role("button", name="Cancel").last.click()
    open_settings(page)
    expect(page.locator("[name=top_k]")).to_have_value("")


def test_what_the_server_refuses_is_said_at_its_field_too(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains about the answer 400
    ask(page, "Count")
    expect(page.locator(".answer:not(.live)")).to_have_count(1)
    open_settings(page)
    page.locator("[name=seed]").evaluate("field => { field.max = ''; field.value = '1e300'; }")
    save(page)
    expect(page.locator("#wrong-seed")).to_have_text("The server does not accept this.")
    expect(page.locator("[name=seed]")).to_be_focused()
    assert stored(page) == {}


def test_a_temporary_chat_is_chosen_before_it_begins_and_shown(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    choice = page.get_by_role("button", name="Temporary chat")
    expect(page.locator(".greeting .passing")).to_be_hidden()
    choice.click()
    expect(choice).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".greeting .passing")).to_contain_text("forgotten when you sign out")
    page.reload()
    expect(choice).to_have_attribute("aria-pressed", "true")
    ask(page, "Between us")
    expect(page.locator(".answer:not(.live)")).to_have_count(1)
    expect(choice).to_be_hidden()
    expect(page.locator("header .passing")).to_be_visible()
    expect(page.locator("[data-does=good]")).to_be_hidden()
    expect(page.locator("#list .passing")).to_be_visible()
    page.reload()
    expect(page.locator(".question .text")).to_have_text(["Between us"])
    expect(page.locator("header .passing")).to_be_visible()
    page.locator("#list .line").hover()
    page.locator("#list .line button").click()
    expect(page.locator("#conversation-menu [role=menuitem]:visible")).to_have_text(["Delete"])
    page.keyboard.press("Enter")
    expect(page.locator("#greeting")).to_be_visible()
    expect(page.locator(".toast .said")).to_have_text("“Between us” was deleted.")
    expect(page.locator(".toast .undo")).to_be_hidden()
    expect(choice).to_have_attribute("aria-pressed", "false")


def test_a_site_says_which_chats_there_are(serve: Serve, open_page: OpenPage) -> None:
    only, off, by_default = (serve(CHAT_TEMPORARY=mode) for mode in ("only", "off", "default"))
    page = open_page(only.url)
    expect(page.locator("header .passing")).to_be_visible()
    expect(page.locator("#temporary")).to_be_hidden()
    page = open_page(off.url)
    expect(page.locator("#greeting")).to_be_visible()
    expect(page.locator("header .passing")).to_be_hidden()
    expect(page.locator("#temporary")).to_be_hidden()
    page = open_page(by_default.url)
    expect(page.locator("#temporary")).to_have_attribute("aria-pressed", "true")
    page.locator("#temporary").click()
    ask(page, "To be kept")
    expect(page.locator("#list .name")).to_have_text(["To be kept"])
    expect(page.locator("header .passing")).to_be_hidden()
    expect(page.locator("#list .passing")).to_be_hidden()
