"""What one does with questions and answers: versions, deletions, opinions, figures, the queue, the box."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser.conftest import PHONE, OpenPage, ask, echo
from tests.server import Serve, Site


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=20, LLM_SYNTHETIC_RATE=500)


@pytest.fixture(scope="module")
def slow(serve: Serve) -> Site:
    """One place to run, two to wait; an answer takes longer than any test."""
    return serve(
        LLM_NUM_OF_CONCURRENT_EXECUTIONS=1, LLM_MAX_QUEUE_SIZE=2, LLM_SYNTHETIC_TOKENS=500, LLM_SYNTHETIC_RATE=5
    )


def answered(page: Page, question: str, answers: int = 1) -> None:
    ask(page, question)
    expect(page.locator(".answer:not(.live) .figures:not(:empty)")).to_have_count(answers)


def last(page: Page, name: str) -> Locator:
    return page.locator(".answer").last.get_by_role("button", name=name)


def test_a_question_is_asked_otherwise_and_both_versions_stay(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "First words")
    answered(page, "More", 2)
    page.locator(".question").first.hover()
    page.locator(".question").first.get_by_role("button", name="Edit").click()
    box = page.locator(".question .edit textarea")
    expect(box).to_have_value("First words")
    box.press("Escape")
    expect(box).to_have_count(0)
    page.locator(".question").first.get_by_role("button", name="Edit").click()
    box.fill("/echo Other words")
    box.press("Enter")
    expect(page.locator(".question .text")).to_have_text(["/echo Other words"])
    expect(page.locator(".answer:not(.live) .text")).to_have_text(["Other words"])
    other = open_page(page.url, beside=page)
    page.bring_to_front()
    for each in (page, other):
        expect(each.locator(".question .which")).to_have_text("2 / 2")
    page.locator(".question").get_by_role("button", name="Version before").click()
    for each in (page, other):
        expect(each.locator(".question .text")).to_have_text(["First words", "More"])
        expect(each.locator(".question .which").first).to_have_text("1 / 2")
    page.reload()
    expect(page.locator(".question .text")).to_have_text(["First words", "More"])


def test_an_empty_box_and_arrow_up_edit_the_last_question(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Once")
    page.locator("#text").press("ArrowUp")
    expect(page.locator(".edit textarea")).to_be_focused()
    expect(page.locator(".edit textarea")).to_have_value("Once")


def test_a_further_answer_stands_beside_the_first(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Count")
    last(page, "Answer again").click()
    expect(page.locator(".answer .which")).to_have_text("2 / 2")
    expect(page.locator(".answer:not(.live) .figures:not(:empty)")).to_have_count(1)
    last(page, "Version before").click()
    expect(page.locator(".answer .which")).to_have_text("1 / 2")
    expect(last(page, "Version before")).to_be_disabled()
    last(page, "Version after").click()
    expect(page.locator(".answer .which")).to_have_text("2 / 2")


def test_a_branch_is_deleted_and_the_other_version_is_shown(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "/echo one")
    last(page, "Answer again").click()
    expect(page.locator(".answer .which")).to_have_text("2 / 2")
    expect(page.locator(".answer:not(.live) .figures:not(:empty)")).to_have_count(1)
    answered(page, "Below the second", 2)
    page.locator(".answer").first.hover()
    page.locator(".answer").first.get_by_role("button", name="Delete").click()
    dialog = page.locator("#delete-dialog")
    dialog.get_by_role("button", name="Keep").click()
    expect(page.locator("article")).to_have_count(4)
    page.locator(".answer").first.hover()
    page.locator(".answer").first.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator(".answer .siblings")).to_be_hidden()
    page.reload()
    expect(page.locator(".question .text")).to_have_text(["/echo one"])


def test_with_its_only_question_a_conversation_is_gone_and_nothing_is_wrong(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains of what is not found
    answered(page, "/echo one")
    page.locator(".question").hover()
    page.locator(".question").get_by_role("button", name="Delete").click()
    page.locator("#delete-dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#greeting")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/")
    expect(page.locator("body")).not_to_contain_text("no longer exists")


def test_an_opinion_is_kept_with_its_comment(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Count")
    last(page, "Bad answer").click()
    comment = page.get_by_role("textbox", name="Comment on this answer")
    expect(comment).to_be_focused()
    comment.fill("It only counts.")
    with page.expect_response("**/feedback/") as response:
        comment.press("Enter")
    assert response.value.ok
    expect(comment).to_have_count(0)
    page.reload()
    expect(last(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    conversation = page.url.rstrip("/").rsplit("/", 1)[1]
    found = page.evaluate("id => fetch(`/api/conversations/${id}/`).then((found) => found.text())", conversation)
    assert json.loads(found)["messages"][1]["feedback"] == {"value": -1, "comment": "It only counts."}
    with page.expect_response("**/feedback/"):
        last(page, "Bad answer").click()
    expect(last(page, "Bad answer")).to_have_attribute("aria-pressed", "false")


def test_a_comment_that_was_not_begun_goes_with_the_next_question_and_one_that_was_stays(
    site: Site, open_page: OpenPage
) -> None:
    page = open_page(site.url)
    comment = page.get_by_role("textbox", name="Comment on this answer")
    answered(page, "First")
    last(page, "Bad answer").click()
    expect(comment).to_be_focused()
    answered(page, "Second", 2)
    expect(comment).to_have_count(0)
    expect(page.locator(".answer").first.get_by_role("button", name="Bad answer")).to_have_attribute(
        "aria-pressed", "true"
    )
    last(page, "Bad answer").click()
    comment.fill("Half a")
    answered(page, "Third", 3)
    expect(comment).to_have_value("Half a")
    page.reload()
    expect(comment).to_have_value("Half a")
    page.locator("#new").click()
    expect(comment).to_have_count(0)
    page.go_back()
    expect(comment).to_have_value("Half a")
    page.locator(".answer").nth(1).get_by_role("button", name="Good answer").click()
    expect(comment).to_have_value("Half a")
    expect(comment).to_be_focused()
    comment.press("Escape")
    page.reload()
    expect(page.locator('[aria-pressed="true"]')).to_have_count(2)
    expect(comment).to_have_count(0)


def test_a_comment_that_does_not_reach_the_server_is_not_lost(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)
    comment = page.get_by_role("textbox", name="Comment on this answer")
    answered(page, "Count")
    with page.expect_response("**/feedback/"):
        last(page, "Bad answer").click()
    comment.fill("It only counts.")
    page.route("**/feedback/", lambda route: route.abort())
    comment.press("Enter")
    expect(page.locator("#problem")).to_have_text("That did not work. Please try again.")
    expect(comment).to_have_value("It only counts.")
    page.unroute("**/feedback/")
    with page.expect_response("**/feedback/"):
        comment.press("Enter")
    expect(comment).to_have_count(0)
    page.reload()
    expect(last(page, "Bad answer")).to_have_attribute("aria-pressed", "true")
    expect(comment).to_have_count(0)


def test_an_answer_says_what_it_took(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Count")
    figures = r"20 tokens · [\d,.]+ tokens/s · first after [\d.]+ s · synthetic"
    expect(page.locator(".figures")).to_have_text(re.compile(f"^{figures}$"))
    page.reload()
    expect(page.locator(".figures")).to_have_text(re.compile(f"^{figures}$"))


def test_who_waits_may_leave_the_queue(slow: Site, open_page: OpenPage) -> None:
    running, second = (open_page(slow.url) for _ in range(2))
    first = open_page(slow.url, viewport=PHONE, has_touch=True, is_mobile=True)
    ask(running, "Running")
    expect(running.locator(".answer .text")).to_contain_text("1 2")
    ask(first, "First")
    expect(first.locator(".waiting .place")).to_contain_text("Waiting: 1 of 1 in line")
    ask(second, "Second")
    expect(second.locator(".waiting .place")).to_contain_text("Waiting: 2 of 2 in line")
    assert second.locator(".waiting progress").bounding_box()["height"] <= 4  # type: ignore[index]
    first.get_by_role("button", name="Leave the queue").press("Enter")
    expect(first.locator(".answer .note")).to_have_text("You left the queue.")
    expect(first.locator(".answer")).to_be_focused()
    expect(first.locator("#send")).to_be_visible()
    expect(second.locator(".waiting .place")).to_contain_text("Waiting: 1 of 1 in line")
    running.locator("#stop").click()
    expect(second.locator(".answer .text")).to_contain_text("1 2")
    second.locator("#stop").click()


def test_who_waits_sees_the_place_the_queue_and_the_time_in_words(serve: Serve, open_page: OpenPage) -> None:
    site = serve(LLM_NUM_OF_CONCURRENT_EXECUTIONS=1, LLM_SYNTHETIC_TOKENS=300, LLM_SYNTHETIC_RATE=20)
    running, first, second = (open_page(site.url, viewport=PHONE, locale=each) for each in ("en", "en", "ja"))
    echo(running, "x" * 240)  # sixty tokens, three seconds
    ask(running, "Running")
    expect(running.locator(".answer .text").last).to_contain_text("1 2")
    for page, words in (
        (first, r"^Waiting: 1 of \d in line, about \d seconds?$"),
        (second, r"^順番待ち：2件中2番目、あと約\d+ ?秒$"),
    ):
        ask(page, "Waiting")
        place = page.locator(".waiting .place")
        expect(place).to_have_text(re.compile(words))
        expect(place).to_be_in_viewport(ratio=1)
        expect(page.locator('.waiting [data-does="leave"]')).to_be_in_viewport(ratio=1)
    expect(first.locator(".waiting .place")).to_contain_text("1 of 2 in line")
    second.locator('[data-does="leave"]').click()
    expect(second.locator(".answer .note")).to_have_text("順番待ちをやめました。")
    expect(first.locator(".waiting .place")).to_contain_text("1 of 1 in line")
    first.locator("#stop").click()
    running.locator("#stop").click()


def test_a_refusal_says_when_the_wait_is_over(serve: Serve, open_page: OpenPage) -> None:
    site = serve(CHAT_MESSAGES_PER_MINUTE=1, LLM_SYNTHETIC_TOKENS=5)
    page = open_page(site.url)
    page.clock.install()
    answered(page, "One")
    ask(page, "Two")
    expect(page.locator("#problem")).to_have_text(re.compile(r"^You have sent as many .+ please try again in \d+ s\.$"))
    expect(page.locator("#text")).to_have_value("Two")
    page.reload()
    expect(page.locator("#text")).to_have_value("Two")
    ask(page, "Two")
    expect(page.locator("#problem")).to_contain_text("please try again in")
    page.clock.fast_forward(61_000)
    expect(page.locator("#problem")).to_have_text("You can try again now.")


def test_a_draft_is_kept_for_each_conversation(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Here")
    page.locator("#text").fill("half a tho")
    page.locator("#new").click()
    expect(page.locator("#text")).to_have_value("")
    page.locator("#text").fill("something new")
    page.go_back()
    expect(page.locator("#text")).to_have_value("half a tho")
    page.reload()
    expect(page.locator("#text")).to_have_value("half a tho")
    page.locator("#new").click()
    expect(page.locator("#text")).to_have_value("something new")


def test_the_box_grows_to_eight_lines(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    box = page.locator("#text")

    def height(lines: int) -> float:
        box.fill("\n".join(["line"] * lines))
        found: float = box.evaluate("box => box.clientHeight")
        return found

    one = height(1)
    assert height(2) - one == pytest.approx(24, abs=1)
    assert height(8) - one == pytest.approx(7 * 24, abs=1)
    assert height(8) == height(30)
    assert box.evaluate("box => box.scrollHeight > box.clientHeight")


WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((each) => each.getClientRects().length && !each.closest(".unseen, pre, .table, .sidebar, #conversation-menu"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
  .map((each) => each.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [360, 1280])
def test_long_words_and_titles_keep_to_the_page(site: Site, open_page: OpenPage, width: int) -> None:
    page = open_page(site.url)
    page.set_viewport_size({"width": width, "height": 640})
    for text in ("W" * 300, "長い題名と文章" * 40, "a " * 200 + "\n\n| x | y |\n|---|---|\n| " + "z" * 300 + " | 1 |"):
        echo(page, text)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(WIDE) == []
        page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    expect(page.locator("#title")).to_have_css("text-overflow", "ellipsis")


def test_a_conversation_that_takes_long_to_load_is_sketched_first(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    answered(page, "Slow to come")
    address = page.url
    page.locator("#new").click()
    held: list[Route] = []
    page.route("**/api/conversations/*/", lambda route: held.append(route))
    with page.expect_request("**/api/conversations/*/"):
        page.locator("#list a").click()
    expect(page.locator("#thread .skeletons")).to_be_visible()
    expect(page.locator("#greeting")).to_be_hidden()
    assert page.url == address
    held[0].continue_()
    expect(page.locator(".question .text")).to_have_text("Slow to come")
    expect(page.locator("#thread .skeletons")).to_have_count(0)


def test_a_caret_stands_at_the_end_of_what_streams(slow: Site, open_page: OpenPage) -> None:
    page = open_page(slow.url)
    ask(page, "Count")
    expect(page.locator(".answer .text")).to_contain_text("1 2")
    caret = "selector => getComputedStyle(document.querySelector(selector), '::after').content"
    assert page.evaluate(caret, ".answer .text > p") == '""'
    page.locator("#stop").click()
    expect(page.locator(".answer.live")).to_have_count(0)
    assert page.evaluate(caret, ".answer .text > p") == "none"
