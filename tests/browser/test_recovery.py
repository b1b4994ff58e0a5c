"""Nothing is lost: tabs closed and opened, networks gone and back, servers killed, drafts, several tabs."""

from __future__ import annotations

import re
import signal

import pytest
from playwright.sync_api import Page, Route, WebSocketRoute, expect

from llm.backends.synthetic import synthetic_text
from tests.browser.conftest import OpenPage, answer_of, ask
from tests.relay import relayed
from tests.server import Serve, Site

TOKENS = 200
ANSWER = synthetic_text(TOKENS)


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Answers take four seconds."""
    return serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=50)


def begun(page: Page) -> None:
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")


def test_a_closed_tab_opened_again_shows_the_answer_where_it_is(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    other = open_page(f"{site.url}/account/sign-in/", beside=page)  # keeps the browser
    ask(page, "Count")
    begun(page)
    address = page.url
    page.close()
    again = open_page(address, beside=other)
    expect(again.locator(".answer .text")).to_contain_text("1 2 3")
    expect(again.locator(".answer:not(.live) .text")).to_have_text(ANSWER)


def test_an_answer_that_nobody_watched_is_there_in_the_end(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    watcher = open_page(site.url, beside=page)
    ask(page, "Count")
    begun(page)
    address = page.url
    page.close()
    expect(watcher.locator("#list i.live:visible")).to_have_count(1)
    expect(watcher.locator("#list i.live:visible")).to_have_count(0)
    watcher.goto(address)
    expect(watcher.locator(".answer:not(.live) .text")).to_have_text(ANSWER)


def test_a_network_that_is_gone_is_said_and_nothing_is_missing_after_it(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains about the connection
    line = Line(page)
    page.reload()
    ask(page, "Count")
    begun(page)
    line.cut()
    expect(page.locator("#status")).to_have_text("No connection. Trying again…")
    ask(page, "Written without a network")
    expect(page.locator("#text")).to_have_value("Written without a network")
    line.mend()
    expect(page.locator("#status")).to_have_text("")
    expect(page.locator(".answer:not(.live) .text")).to_have_text(ANSWER)
    expect(page.locator(".answer .text")).to_have_count(1)
    expect(page.locator("#text")).to_have_value("Written without a network")


def test_a_message_sent_without_a_network_goes_when_it_is_back(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)
    line = Line(page)
    page.reload()
    expect(page.locator("#model")).to_have_text("synthetic")
    line.cut()
    expect(page.locator("#status")).to_have_text("No connection. Trying again…")
    ask(page, "Into the dark")
    page.locator("#new").click()  # it is still the new chat that is to begin with this
    expect(page.locator("#text")).to_have_value("Into the dark")
    expect(page.locator("#send")).to_be_disabled()
    line.mend()
    expect(page.locator(".question .text")).to_have_text("Into the dark")
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator(".answer:not(.live) .text")).to_have_text(ANSWER)
    expect(page.locator("#list a")).to_have_count(1)


def test_a_message_whose_reply_was_lost_is_asked_once(site: Site, open_page: OpenPage) -> None:
    """The server has accepted it, but the line broke before the page heard of it."""
    page = open_page(site.url, quiet=True)
    line = Line(page)
    page.reload()
    expect(page.locator("#model")).to_have_text("synthetic")
    line.deaf = True
    ask(page, "Only once")
    expect(page.locator("#text")).to_have_value("Only once")
    line.cut(offline=False)
    line.deaf = False
    page.reload()  # the page itself is gone in between
    expect(page.locator("#status")).to_have_text("No connection. Trying again…")
    expect(page.locator("#text")).to_have_value("Only once")
    line.mend()
    expect(page.locator(".question .text")).to_have_text(["Only once"])
    expect(page.locator(".answer:not(.live) .text")).to_have_text([ANSWER])
    expect(page.locator("#text")).to_have_value("")
    expect(page.locator("#list a")).to_have_count(1)


def test_a_connection_that_went_silent_is_replaced_when_the_page_is_shown_again(
    site: Site, open_page: OpenPage
) -> None:
    """Once with an answer that is still being written, once with one that ended in the silence."""
    with relayed(site.url) as relay:
        page = open_page(relay.url)
        ask(page, "Count")
        begun(page)
        awake = open_page(page.url.replace(relay.url, site.url), beside=page)
        for answers in (1, 2):
            if answers == 2:
                ask(page, "Count")
            begun(page)
            relay.hush()
            if answers == 2:
                expect(awake.locator(".answer:not(.live) .text")).to_have_text([ANSWER] * 2)
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
            assert answer_of(page) != ANSWER
            expect(page.locator(".answer:not(.live) .text")).to_have_text([ANSWER] * answers, timeout=6_000)
        expect(page.locator("#list i.live:visible")).to_have_count(0, timeout=6_000)
        page.close()  # before its network


def test_a_killed_server_comes_back_and_the_page_with_it(serve: Serve, open_page: OpenPage) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=5000, LLM_SYNTHETIC_RATE=20, LLM_MAX_NEW_TOKENS=5000)
    page = open_page(site.url, quiet=True)
    other = open_page(site.url, beside=page, quiet=True)
    ask(page, "Count")
    begun(page)
    other.goto(page.url)
    begun(other)
    site.stop(signal.SIGKILL)
    for tab in (page, other):
        expect(tab.locator("#status")).to_have_text("No connection. Trying again…")
    page.locator("#text").fill("A draft meanwhile")
    site.start()
    for tab in (page, other):
        expect(tab.locator("#status")).to_have_text("", timeout=30_000)
        expect(tab.locator(".question .text")).to_have_text(["Count"])
        expect(tab.locator(".answer .note")).to_contain_text("The server stopped", timeout=40_000)
    assert answer_of(page) == answer_of(other)
    expect(page.locator("#text")).to_have_value("A draft meanwhile")
    page.locator("#text").press("Enter")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    page.keyboard.press("Escape")
    expect(page.locator(".answer .note").last).to_have_text("Stopped.")


def test_all_tabs_agree(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "/echo First")
    expect(page.locator(".answer:not(.live) .text")).to_have_text("First")
    tabs = [page, *(open_page(page.url, beside=page) for _ in range(2))]
    for tab in tabs:
        expect(tab.locator(".answer .text")).to_have_text(["First"])
    ask(tabs[1], "/echo Second")
    for tab in tabs:
        expect(tab.locator(".answer:not(.live) .text")).to_have_text(["First", "Second"])
    tabs[2].locator(".question").last.hover()
    tabs[2].locator(".question").last.get_by_role("button", name="Edit").click()
    tabs[2].locator(".question textarea").last.fill("/echo Third")
    tabs[2].keyboard.press("Enter")
    for tab in tabs:
        expect(tab.locator(".answer:not(.live) .text")).to_have_text(["First", "Third"])
        expect(tab.locator(".question .which").last).to_have_text("2 / 2")
    page.locator(".question [data-does=before]").last.click()
    for tab in tabs:
        expect(tab.locator(".answer:not(.live) .text")).to_have_text(["First", "Second"])
    page.locator(".question").last.hover()
    page.locator(".question").last.get_by_role("button", name="Delete").click()
    page.locator("#delete-dialog").get_by_role("button", name="Delete").click()
    for tab in tabs:
        expect(tab.locator(".answer:not(.live) .text")).to_have_text(["First", "Third"])
        expect(tab.locator(".question .which").last).to_be_hidden()


def test_a_change_in_another_tab_shows_while_an_answer_is_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    ask(page, "Count")
    begun(page)
    conversation = page.url.rstrip("/").rsplit("/", 1)[1]
    other = open_page(site.url, beside=page)
    other.evaluate(
        """(id) => fetch(`/api/conversations/${id}/`, {
          method: "PATCH",
          headers: { "X-CSRFToken": document.cookie.match(/csrftoken=([^;]*)/)[1] },
          body: JSON.stringify({ title: "Another name" }),
        })""",
        conversation,
    )
    expect(page.locator("#title")).to_have_text("Another name")
    expect(page.locator(".answer.live")).to_have_count(1)
    expect(page.locator(".answer:not(.live) .text")).to_have_text(ANSWER)


def test_a_draft_that_the_browser_has_no_room_for_is_said_not_to_be_kept(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.evaluate("localStorage.setItem('full', 'x'.repeat(5 * 1024 * 1024 - 500))")
    page.locator("#text").fill("Too long. " * 60)
    expect(page.locator("#problem")).to_contain_text("too long for the browser to keep")
    page.locator("#text").fill("Short.")
    expect(page.locator("#problem")).to_have_text("")
    page.reload()
    expect(page.locator("#text")).to_have_value("Short.")


def test_each_conversation_keeps_its_draft(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    box = page.locator("#text")
    ask(page, "/echo First")
    expect(page.locator(".answer:not(.live) .text")).to_have_text("First")
    box.fill("for the first")
    page.locator("#new").click()
    expect(box).to_have_value("")
    box.fill("for a new one")
    page.reload()
    expect(box).to_have_value("for a new one")
    page.locator("#list a").click()
    expect(box).to_have_value("for the first")
    page.reload()
    expect(page.locator(".answer .text")).to_have_text("First")
    expect(box).to_have_value("for the first")
    box.press("Enter")
    expect(box).to_have_value("")
    page.reload()
    expect(page.locator(".question")).to_have_count(2)
    expect(box).to_have_value("")
    page.locator("#new").click()
    expect(box).to_have_value("for a new one")


def test_what_is_typed_before_the_scripts_run_stays(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.url}/account/sign-in/")
    held: list[Route] = []
    page.route("**/js/main*.js", lambda route: held.append(route))
    page.goto(site.url, wait_until="commit")
    page.locator("#text").fill("Quicker than the network")
    expect(page.locator("#title")).to_be_empty()
    held[0].continue_()
    expect(page.locator("#title")).not_to_be_empty()
    expect(page.locator("#text")).to_have_value("Quicker than the network")


class Line:
    """What is between a page and its site; takes effect with the page's next connection."""

    def __init__(self, page: Page) -> None:
        self.deaf = False
        self._page = page
        self._open: list[WebSocketRoute] = []
        self._broken = False
        page.route_web_socket(re.compile("/ws/"), self._connected)

    def _connected(self, socket: WebSocketRoute) -> None:
        if self._broken:
            socket.close(code=1011)
            return
        server = socket.connect_to_server()
        server.on_message(lambda message: None if self.deaf else socket.send(message))
        self._open.append(socket)

    def cut(self, *, offline: bool = True) -> None:
        self._broken = True
        self._page.context.set_offline(offline)
        for socket in self._open:
            socket.close(code=1011)
        self._open.clear()

    def mend(self) -> None:
        self._broken = False
        self._page.context.set_offline(False)
        self._page.evaluate("dispatchEvent(new Event('online'))")
