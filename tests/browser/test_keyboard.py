"""The page without a mouse: what keys do, where the focus goes, and the Enter of an input method."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, OpenPage, ask, echo
from tests.server import Serve, Site


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Echoes a thousand characters a second; counts until it is stopped, or for half a minute."""
    return serve(LLM_SYNTHETIC_TOKENS=6000, LLM_SYNTHETIC_RATE=200, LLM_MAX_NEW_TOKENS=6000, LLM_GENERATION_TIMEOUT=30)


def focused(page: Page) -> str:
    """How a screen reader would call what has the focus."""
    name: str = page.evaluate(
        """() => {
          const { activeElement: at } = document;
          return at.ariaLabel || at.labels?.[0]?.textContent.trim() || at.textContent.trim() || at.tagName;
        }"""
    )
    return name


def tab(page: Page, times: int = 1) -> list[str]:
    found = []
    for _ in range(times):
        page.keyboard.press("Tab")
        found.append(focused(page))
    return found


def test_the_focus_goes_through_the_page_as_one_reads_it(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    expect(page.locator("#text")).to_be_focused()
    echo(page, "Hello")
    expect(page.locator("#list a")).to_have_count(1)
    page.locator("#skip").focus()
    order = tab(page, 19)
    assert (
        order
        == [
            "New chat",
            "Search conversations",
            "/echo Hello",
            "What to do with “/echo Hello”",
            "Sign in",
            "日本語",
            "As the system",
            "Keyboard shortcuts",
            "Conversations",
            "Settings of this conversation",
            *("Copy", "Edit", "Delete"),
            *("Copy", "Answer again", "Good answer", "Bad answer", "Delete"),
            "Message",
        ][: len(order)]
    )


def test_the_first_key_leads_past_the_list(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    address = page.url
    link = page.get_by_role("link", name="To the message")
    expect(link).not_to_be_in_viewport()
    page.locator("#new").focus()
    page.keyboard.press("Shift+Tab")
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport(ratio=1)
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    assert page.url == address


def test_sending_and_stopping_keep_the_focus(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.locator("#text").fill("Count")
    assert tab(page) == ["Send"]
    page.keyboard.press("Enter")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    assert focused(page) in ("Message", "Stop")
    page.locator("#stop").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    assert focused(page) == "Message"
    page.locator("#new").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    page.locator(".try").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    page.get_by_role("button", name="Continue").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    page.get_by_role("button", name="Answer again").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Escape")


def test_what_opens_gives_the_focus_back(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    echo(page, "Again")
    for opener in (
        page.locator("#shortcuts-button"),
        page.locator("#settings-button"),
        page.get_by_role("button", name="Delete").first,
        page.get_by_role("button", name="Edit").first,
        page.locator("#list button"),
    ):
        opener.focus()
        page.keyboard.press("Enter")
        expect(opener).not_to_be_focused()
        page.keyboard.press("Escape")
        expect(opener).to_be_focused()
    page.locator("#list button").press("Enter")
    page.get_by_role("menuitem", name="Rename").press("Enter")
    page.keyboard.type("Renamed")
    page.keyboard.press("Enter")
    expect(page.locator("#list a")).to_have_text("Renamed")
    expect(page.locator("#list a")).to_be_focused()
    page.get_by_role("button", name="Delete").nth(2).press("Enter")
    page.locator("#delete-dialog").get_by_role("button", name="Delete").press("Enter")
    expect(page.locator(".question")).to_have_count(1)
    expect(page.locator("#text")).to_be_focused()
    page.locator("#list button").press("Enter")
    page.get_by_role("menuitem", name="Delete").press("Enter")
    expect(page.locator("#greeting")).to_be_visible()
    expect(page.locator("#text")).to_be_focused()


def test_deleting_another_conversation_leads_to_the_way_back(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    page.locator("#new").click()
    page.locator("#list button").press("Enter")
    page.get_by_role("menuitem", name="Delete").press("Enter")
    expect(page.get_by_role("button", name="Undo")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".answer .text")).to_have_text("Hello")


def test_keys_of_a_menu(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    page.locator("#list button").press("Enter")
    items = page.locator("#conversation-menu [role=menuitem]")
    expect(items.first).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(items.last).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(items.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(items.last).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Tab")
    expect(page.locator("#conversation-menu")).to_be_hidden()


def test_shortcuts(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "Hello")
    page.keyboard.press("Meta+/")  # this is no Mac
    expect(page.locator("#shortcuts")).to_be_hidden()
    page.keyboard.press("Control+/")
    expect(page.locator("#shortcuts")).to_be_visible()
    expect(page.locator("#shortcuts").get_by_text("⌘")).to_have_count(0)
    page.keyboard.press("Control+Shift+O")  # nothing moves behind a dialog
    page.keyboard.press("Control+/")
    expect(page.locator("#greeting")).to_be_hidden()
    page.keyboard.press("Escape")
    expect(page.locator("#shortcuts")).to_be_hidden()
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Control+Shift+S")
    expect(page.locator("#sidebar")).to_be_hidden()
    page.reload()
    expect(page.locator("#sidebar")).to_be_hidden()
    page.keyboard.press("Control+K")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Control+Shift+O")
    expect(page.locator("#greeting")).to_be_visible()
    expect(page.locator("#text")).to_be_focused()
    page.go_back()
    expect(page.locator(".answer .text")).to_have_text("Hello")
    page.locator("#text").press("ArrowUp")
    expect(page.locator(".question textarea")).to_be_focused()


MACS = {
    "Chromium": ("userAgentData", "{ platform: 'macOS' }"),
    "Safari": ("platform", "'MacIntel'"),
}


@pytest.mark.parametrize("mac", MACS)
def test_on_a_mac_the_command_key_does_what_control_does_elsewhere(site: Site, open_page: OpenPage, mac: str) -> None:
    page = open_page("about:blank")
    for name, value in (("userAgentData", "undefined"), MACS[mac]):
        attribute = f"{{ get: () => ({value}), configurable: true }}"
        page.add_init_script(f"Object.defineProperty(Navigator.prototype, '{name}', {attribute});")
    page.goto(site.url)
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Control+K")  # deletes to the end of the line there
    expect(page.locator("#text")).to_be_focused()
    page.keyboard.press("Meta+K")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Meta+/")
    expect(page.locator("#shortcuts")).to_be_visible()
    expect(page.locator("#shortcuts kbd").get_by_text("⌘")).to_have_count(4)
    expect(page.locator("#shortcuts").get_by_text("Ctrl")).to_have_count(0)


def test_escape_closes_the_drawer_alone(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, viewport=PHONE)
    ask(page, "Count")
    page.locator("#menu").press("Enter")
    expect(page.locator("#new")).to_be_focused()
    page.locator("#text").evaluate("box => box.focus()")
    expect(page.locator("#new")).to_be_focused()  # what is behind the drawer cannot be reached
    page.locator("#list button").press("Enter")
    page.keyboard.press("Escape")
    expect(page.locator("#conversation-menu")).to_be_hidden()
    expect(page.locator("#sidebar")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#sidebar")).to_be_hidden()
    expect(page.locator("#menu")).to_be_focused()
    page.set_viewport_size(DESKTOP)
    search = page.locator("#search")
    search.fill("Count")
    for _ in range(2):  # the first empties the field, the second does nothing
        search.press("Escape")
        expect(search).to_have_value("")
    expect(page.locator(".answer.live")).to_have_count(1)
    page.locator("#text").press("Escape")
    expect(page.locator(".answer .note")).to_have_text("Stopped.")


def test_enter_belongs_to_the_input_method_while_it_composes(site: Site, open_page: OpenPage) -> None:
    """With the browser's own composition, as an input method drives it."""
    page = open_page(site.url)
    method = page.context.new_cdp_session(page)
    box = page.locator("#text")
    box.focus()
    method.send("Input.imeSetComposition", {"text": "にほん", "selectionStart": 3, "selectionEnd": 3})
    expect(box).to_have_value("にほん")
    page.keyboard.press("Enter")
    method.send("Input.imeSetComposition", {"text": "日本", "selectionStart": 2, "selectionEnd": 2})
    page.keyboard.press("Escape")
    method.send("Input.insertText", {"text": "日本"})
    expect(page.locator(".question")).to_have_count(0)
    assert box.input_value().strip() == "日本"
    page.keyboard.press("Enter")
    expect(page.locator(".question .text")).to_contain_text("日本")
    page.keyboard.press("Escape")


def test_the_enter_that_ends_a_composition_sends_nothing_in_any_browser(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    composing = {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    safari = {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True}
    box = page.locator("#text")
    box.fill("日本")
    for event in (composing, safari):
        box.dispatch_event("keydown", event)
        assert page.locator(".question").count() == 0
    echo(page, "日本")
    page.get_by_role("button", name="Edit").click()
    for event in (composing, safari, {**composing, "key": "Escape"}, {**safari, "key": "Escape"}):
        page.locator(".question textarea").dispatch_event("keydown", event)
    expect(page.locator(".question textarea")).to_be_visible()
    page.locator(".question textarea").press("Escape")
    page.locator("#list button").press("Enter")
    page.get_by_role("menuitem", name="Rename").press("Enter")
    for event in (composing, safari, {**composing, "key": "Escape"}, {**safari, "key": "Escape"}):
        page.locator("#list input").dispatch_event("keydown", event)
    expect(page.locator("#list input")).to_be_visible()
    page.keyboard.press("Escape")
    ask(page, "Count")
    expect(page.locator(".answer.live")).to_have_count(1)
    for event in (composing, safari):
        box.dispatch_event("keydown", {**event, "key": "Escape"})
    page.locator("#stop").click()
    expect(page.locator(".answer .note").last).to_have_text("Stopped.")
    assert "1 2 3" in page.locator(".answer .text").last.inner_text()
