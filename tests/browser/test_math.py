"""Formulas: set by KaTeX, read and copied as they were written."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import PHONE, OpenPage, ask, echo
from tests.server import Serve, Site

FORMULAS = r"""Let $x^2$ be \(y\), for $20 or $30:

$$
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
$$

- **One** \[\sum_{k=1}^n k\]
- Two
"""

UNSET = r"""$\frac{1$ and $\unheardof{x}$ and $\href{https://foreign.invalid/}{x}$ and
$\includegraphics{https://foreign.invalid/x.png}$ and $\htmlClass{scrim}{x}$ and $\def\a{\a\a}\a$"""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_RATE=1000, LLM_MAX_NEW_TOKENS=9000, CHAT_MESSAGE_MAX_CHARS=30_000)


def test_formulas_are_set_with_their_meaning_for_who_does_not_see_them(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url))
    echo(page, "None here, for $20.")
    assert not [url for url in fetched if "katex" in url]
    echo(page, FORMULAS)
    for _ in range(2):
        answer = page.locator(".answer .text").last
        expect(answer.locator(".katex-html")).to_have_count(4)
        assert answer.locator("annotation").all_text_contents() == [
            "x^2",
            "y",
            r"x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}",
            r"\sum_{k=1}^n k",
        ]
        expect(answer.locator(".katex-html[aria-hidden=true]")).to_have_count(4)
        expect(answer).to_contain_text("for $20 or $30:")
        expect(answer.locator(".katex-mathml").first).to_have_css("position", "absolute")  # the styles are there
        page.reload()
    assert [url for url in fetched if url.endswith(".woff2")]
    assert all(url.startswith(site.url) for url in fetched)


def test_what_cannot_be_set_is_shown_as_it_was_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, f"$x$ {UNSET}")
    expect(page.locator(".answer .katex")).to_have_count(1)
    text = page.locator(".answer .text").inner_text()
    assert text.endswith(UNSET)


def test_a_long_formula_does_not_reach_over_its_answer(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, viewport=PHONE)
    terms = " + ".join(f"a_{{{place}}}" for place in range(50))
    echo(page, f"$${terms}$$\n\n$\\rule{{1000em}}{{1000em}}$ $\\kern{{1000em}}x$ $\\raisebox{{1000em}}{{x}}$")
    formula = page.locator(".answer .math.display")
    expect(formula.locator(".katex")).to_be_visible()
    assert formula.evaluate("each => each.scrollWidth > each.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    formula.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.math.display').scrollLeft > 0")


def test_who_is_at_the_end_stays_there_when_formulas_are_set(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    held: list[Route] = []
    page.route("**/katex*.css", lambda route: held.append(route))
    echo(page, "$$\\frac{\\frac{a}{b}}{\\frac{c}{d}}$$\n\n" * 12)
    expect(page.locator(".answer .math").last).to_contain_text("frac")
    held[0].continue_()
    expect(page.locator(".answer .katex")).to_have_count(12)
    page.wait_for_function(
        "() => { const at = document.querySelector('#scroller');"
        " return at.scrollHeight - at.scrollTop - at.clientHeight < 2; }"
    )


def select(page: Page, first: str, last: str) -> None:
    page.evaluate(
        """([first, last]) => {
          const range = document.createRange();
          range.setStart(document.querySelector(first), 0);
          range.setEndAfter(document.querySelector(last));
          getSelection().removeAllRanges();
          getSelection().addRange(range);
        }""",
        [first, last],
    )


def test_what_is_copied_has_formulas_as_they_were_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    echo(page, FORMULAS)
    expect(page.locator(".answer .katex")).to_have_count(4)
    select(page, ".answer .text > p", ".answer .text > ul")
    page.keyboard.press("Control+c")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert [line for line in copied.splitlines() if line] == [
        r"Let $x^2$ be \(y\), for $20 or $30:",
        "$$",
        r"x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}",
        "$$",
        "One",
        r"\[\sum_{k=1}^n k\]",
        "Two",
    ]
    select(page, ".answer .text > p .katex-html .msupsub", ".answer .text > p .katex-html .msupsub")
    page.keyboard.press("Control+c")
    assert page.evaluate("navigator.clipboard.readText()") == "$x^2$"
    select(page, ".answer .text > ul li:last-child", ".answer .text > ul li:last-child")
    page.keyboard.press("Control+c")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "Two"
    page.locator(".answer [data-does=copy]").click()
    expect(page.locator(".answer [data-does=copy].done")).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()") == FORMULAS
    assert page.locator("body > .answer").count() == 0


def test_an_answer_is_announced_with_its_formulas_as_they_were_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "$z$")
    expect(page.locator(".answer .katex")).to_have_count(1)
    ask(page, r"/echo So $x^2$ it is.")
    expect(page.locator("#announced-log")).to_contain_text("So $x^2$ it is.")
