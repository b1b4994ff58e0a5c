"""The list of conversations: long, searched, named, pinned, deleted and brought back; and long conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import OpenPage, ask
from tests.server import Serve, Site

FURTHER = """
from datetime import timedelta
from django.utils import timezone
from chat.models import Conversation
first = Conversation.objects.get(pk="{id}")
now = timezone.now()
Conversation.objects.bulk_create(
    Conversation(visitor=first.visitor, title=f"Talk {{n}}", updated=now - timedelta(minutes=n + 1))
    for n in range({count})
)
"""

MESSAGES = """
from chat.models import Conversation, Message
row = Conversation.objects.get(pk="{id}")
parent = row.head
rows = []
for n in range({count}):
    role = ("user", "assistant")[n % 2]
    parent = Message(conversation=row, parent=parent, role=role, text=f"Message {{n}} of **many**")
    rows.append(parent)
Message.objects.bulk_create(rows)
row.head = parent
row.save()
"""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=20, LLM_SYNTHETIC_RATE=1000)


def answered(page: Page, *questions: str) -> None:
    """Have a conversation about each."""
    for question in questions:
        page.locator("#new").click()
        ask(page, question)
        expect(page.locator(".answer:not(.live) .figures")).to_contain_text("20 tokens")


def id_of(page: Page) -> str:
    return page.url.rstrip("/").rsplit("/", 1)[1]


def choose(page: Page, title: str, item: str) -> None:
    line = page.locator(".line", has_text=title)
    line.hover()
    line.locator("button").click()
    page.get_by_role("menuitem", name=item).click()


def titles(page: Page) -> Locator:
    return page.locator("#list .name")


def test_thousands_of_conversations_come_as_one_scrolls(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "The first of all")
    site.manage("shell", "-v", "0", "-c", FURTHER.format(id=id_of(page), count=2000))
    page.reload()
    expect(page.locator(".line")).to_have_count(50)
    expect(titles(page).first).to_have_text("The first of all")
    page.evaluate("document.querySelector('#list').kept = document.querySelector('.line:nth-child(30)')")
    for _ in range(60):
        page.locator("#conversations").evaluate("list => { list.scrollTop = list.scrollHeight; }")
        page.wait_for_timeout(50)
        if page.locator(".line").count() == 2001:
            break
    expect(page.locator(".line")).to_have_count(2001)
    expect(titles(page).last).to_have_text("Talk 1999")
    assert page.evaluate("document.querySelector('#list').kept.isConnected")
    page.locator("#new").click()
    ask(page, "The last of all")
    expect(titles(page).first).to_have_text("The last of all")
    expect(page.locator(".line")).to_have_count(2002)


def test_a_thousand_messages_come_as_one_scrolls_up(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Where it begins")
    site.manage("shell", "-v", "0", "-c", MESSAGES.format(id=id_of(page), count=1000))
    page.reload()
    expect(page.locator("article")).to_have_count(50)
    expect(page.locator("article .text").last).to_have_text("Message 999 of many")
    for _ in range(60):
        page.locator("#scroller").evaluate("scroller => { scroller.scrollTop = 0; }")
        page.wait_for_timeout(50)
        if page.locator("article").count() == 1002:
            break
    expect(page.locator("article")).to_have_count(1002)
    expect(page.locator(".question .text").first).to_have_text("Where it begins")
    ask(page, "And one more")
    expect(page.locator("article")).to_have_count(1004)
    expect(page.locator(".answer .text").last).to_contain_text("19 20")
    expect(page.locator(".answer").last).to_be_in_viewport()


def test_what_is_read_stays_in_its_place_when_earlier_messages_come(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "A beginning")
    site.manage("shell", "-v", "0", "-c", MESSAGES.format(id=id_of(page), count=120))
    page.reload()
    mark = page.locator("article", has_text="Message 70 ")
    expect(mark).to_be_attached()
    held: list[Route] = []
    page.route("**/api/conversations/*/?before=*", lambda route: held.append(route))
    with page.expect_request("**/api/conversations/*/?before=*"):
        page.locator("#scroller").evaluate("scroller => { scroller.scrollTop = 200; }")
    known, place = page.locator("article").count(), mark.bounding_box()
    assert place is not None
    held[0].continue_()
    expect(page.locator("article")).to_have_count(known + 50)
    moved = mark.bounding_box()
    assert moved is not None
    assert abs(moved["y"] - place["y"]) < 2


def test_search_finds_titles_and_texts_in_any_language(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Das Straßenfest", "東京の天気はどうですか", "Something else\nwith a Needle below its title")
    expect(titles(page)).to_have_count(3)
    search = page.locator("#search")
    for query, found in (
        ("天気", "東京の天気はどうですか"),
        ("needle", "Something else"),
        ("straßen", "Das Straßenfest"),
    ):
        search.fill(query)
        expect(titles(page)).to_have_text([found])
    search.fill("nowhere")
    expect(page.locator("#nothing")).to_have_text("Nothing found.")
    search.fill("")
    expect(titles(page)).to_have_count(3)


def test_a_conversation_is_renamed_in_its_place(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Old name", "Other")
    other = open_page(page.url, beside=page)
    expect(titles(other)).to_have_text(["Other", "Old name"])
    page.bring_to_front()
    choose(page, "Old name", "Rename")
    box = page.get_by_role("textbox", name="New title")
    box.fill("Never")
    box.press("Escape")
    expect(titles(page)).to_have_text(["Other", "Old name"])
    choose(page, "Old name", "Rename")
    expect(box).to_be_focused()
    box.fill("新しい名前")
    box.press("Enter")
    for each in (page, other):
        expect(titles(each)).to_have_text(["Other", "新しい名前"])
    choose(page, "Other", "Rename")
    box.fill("The open one")
    box.press("Enter")
    for each in (page, other):
        expect(each.locator("#title")).to_have_text("The open one")
    page.reload()
    expect(titles(page)).to_have_text(["The open one", "新しい名前"])


def test_a_line_that_moves_is_renamed_on(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Old name", "Other")
    other = open_page(page.url, beside=page)
    page.bring_to_front()
    choose(page, "Old name", "Rename")
    page.keyboard.type("A new")
    choose(other, "Old name", "Pin")
    expect(page.locator("#list h2")).to_have_text(["Pinned", "Today"])
    page.keyboard.type(" name")
    page.keyboard.press("Enter")
    for each in (page, other):
        expect(titles(each)).to_have_text(["A new name", "Other"])


def test_a_pinned_conversation_stands_first(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "One", "Two", "Three")
    choose(page, "One", "Pin")
    expect(titles(page)).to_have_text(["One", "Three", "Two"])
    expect(page.locator("#list h2")).to_have_text(["Pinned", "Today"])
    page.reload()
    expect(titles(page)).to_have_text(["One", "Three", "Two"])
    choose(page, "One", "Unpin")
    expect(titles(page)).to_have_text(["Three", "Two", "One"])
    expect(page.locator("#list h2")).to_have_text(["Today"])


def test_deleted_conversations_come_back_each_by_its_own_undo(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Kept", "Gone", "Back")
    other = open_page(page.url, beside=page, quiet=True)  # the browser itself complains about the answer 404
    expect(titles(other)).to_have_count(3)
    page.bring_to_front()
    choose(page, "Back", "Delete")
    expect(page.locator("#greeting")).to_be_visible()  # it was open
    choose(page, "Gone", "Delete")
    expect(page.locator(".toast .said")).to_have_text(["“Back” was deleted.", "“Gone” was deleted."])
    expect(titles(other)).to_have_text(["Kept"])
    expect(other.locator("#problem")).to_have_text("This conversation no longer exists.")
    page.locator(".toast", has_text="Back").get_by_role("button", name="Undo").click()
    expect(page.locator(".question .text")).to_have_text(["Back"])
    for each in (page, other):
        expect(titles(each)).to_have_text(["Back", "Kept"])
    page.locator(".toast").get_by_role("button", name="Close").click()
    expect(page.locator(".toast")).to_have_count(0)
    page.reload()
    expect(titles(page)).to_have_text(["Back", "Kept"])


def test_the_way_back_stays_while_a_conversation_may_be_deleted(site: Site, open_page: OpenPage) -> None:
    """A server that failed after it deleted one, and a server that failed before."""
    page = open_page(site.url, quiet=True)  # the browser itself complains about the answers 503
    answered(page, "One", "Two")

    def fail(route: Route) -> None:
        if route.request.method != "DELETE":
            route.continue_()
            return
        if deletes:
            route.fetch()
        route.fulfill(status=503, body="{}")

    page.route("**/api/conversations/*/", fail)
    deletes = True
    choose(page, "One", "Delete")
    expect(titles(page)).to_have_text(["Two"])
    page.wait_for_function("fetch('/api/conversations/').then((found) => found.text()).then((t) => !t.includes('One'))")
    page.get_by_role("button", name="Undo").click()
    expect(titles(page)).to_have_text(["Two", "One"])
    deletes = False
    choose(page, "Two", "Delete")
    expect(page.locator("#problem")).to_have_text("That did not work. Please try again.")
    expect(titles(page)).to_have_text(["Two", "One"])
    expect(page.locator(".toast")).to_have_count(0)


def test_a_conversation_is_deleted_while_it_is_answered(serve: Serve, open_page: OpenPage) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=1000, LLM_SYNTHETIC_RATE=10)
    page = open_page(site.url)
    ask(page, "Endless")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")
    choose(page, "Endless", "Delete")
    expect(page.locator("#list .name")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".answer .note")).to_have_text("Stopped.")
    expect(page.locator(".answer .text")).to_contain_text("1 2 3")


def test_a_conversation_is_exported(site: Site, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(site.url)
    answered(page, "Export: 日本")
    for item, ending in (("Export as Markdown", "md"), ("Export as JSON", "json")):
        with page.expect_download() as download:
            choose(page, "Export", item)
        assert download.value.suggested_filename.endswith(f".{ending}")
        download.value.save_as(tmp_path / ending)
    text = (tmp_path / "md").read_text()
    assert "Export: 日本" in text
    assert "18 19 20" in text
    exported = json.loads((tmp_path / "json").read_text())
    assert [each["text"][:6] for each in exported["messages"]] == ["Export", "1 2 3 "]


def test_what_does_not_reach_the_server_is_taken_back_and_said(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains about the connection
    answered(page, "Name", "Other")
    page.get_by_role("button", name="Answer again").last.click()
    expect(page.locator(".answer .which")).to_have_text("2 / 2")
    expect(page.locator(".answer:not(.live) .figures")).to_contain_text("20 tokens")
    page.context.set_offline(True)
    page.get_by_role("button", name="Version before").click()
    expect(page.locator("#problem")).to_have_text("The server cannot be reached right now.")
    choose(page, "Name", "Pin")
    expect(page.locator("#problem")).to_have_text("That did not work. Please try again.")
    expect(titles(page)).to_have_text(["Other", "Name"])
    choose(page, "Name", "Delete")
    expect(page.locator(".toast")).to_have_count(0)
    expect(titles(page)).to_have_text(["Other", "Name"])
    page.locator("#settings-button").click()
    page.locator("#settings").get_by_role("button", name="Save").click()
    expect(page.locator("#settings-problem")).to_have_text("The server cannot be reached right now.")
    page.context.set_offline(False)
