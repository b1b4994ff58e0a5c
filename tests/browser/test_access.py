"""The page for everyone: what axe-core finds, keys, what screen readers are told, narrow and wide, any script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import DESKTOP, PHONE, OpenPage, ask, echo
from tests.browser.states import STATES, Sites, State, three_sites
from tests.server import ROOT, Serve

AXE = ROOT / "chat" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

ARABIC = "السماء زرقاء لأن الهواء يبعثر الضوء الأزرق."

TOO_WIDE = """() => {
  const wide = [document.scrollingElement, document.querySelector("#scroller")].filter(
    (each) => each && each.scrollWidth > each.clientWidth);
  const beyond = [...document.body.querySelectorAll("*")].filter((each) => {
    if (each.closest("pre, .table, .unseen, .skip")) return false;
    if (!each.checkVisibility({ visibilityProperty: true })) return false;
    const { left, right, width } = each.getBoundingClientRect();
    return width > 0 && (left < -0.5 || right > innerWidth + 0.5);
  });
  return [...wide, ...beyond].map((each) => each.outerHTML.slice(0, 200));
}"""

CARET = """() => {
  const last = document.querySelector(".answer.live .text > :last-child");
  return getComputedStyle(last, "::after").animationName;
}"""

MOVING = """() => [...document.querySelectorAll("*")].some(
  (each) => getComputedStyle(each).transitionDuration.split(", ").some((time) => parseFloat(time) > 0))"""

STARTS = """(element) => {
  const text = document.createTreeWalker(element, NodeFilter.SHOW_TEXT).nextNode();
  const range = document.createRange();
  range.selectNodeContents(text);
  const [line] = range.getClientRects();
  const box = element.getBoundingClientRect();
  return line.left - box.left < box.right - line.right ? "left" : "right";
}"""


@pytest.fixture(scope="module")
def sites(serve: Serve, browser: Browser) -> Iterator[Sites]:
    with three_sites(serve, browser) as sites:
        yield sites


@pytest.fixture(scope="module")
def axe() -> str:
    assert AXE.exists(), "make test installs it"
    return Path(AXE).read_text()


def violations(page: Page, axe: str) -> list[str]:
    """What axe-core finds wrong: the rule, and where."""
    page.evaluate(axe)
    found: list[dict[str, Any]] = page.evaluate(
        "rules => axe.run({runOnly: rules, resultTypes: ['violations']}).then(({violations}) => violations)", RULES
    )
    return [f"{rule['id']}: {node['html']} {node['failureSummary']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("name", STATES)
def test_axe_finds_nothing_wrong(sites: Sites, open_page: OpenPage, axe: str, name: str) -> None:
    page = come(sites, open_page, STATES[name])
    look(page, axe)


@pytest.mark.parametrize(
    "name", ["empty", "conversation", "waiting", "sign-in", "too-many", "nowhere", "sign-up", "account"]
)
def test_axe_finds_nothing_wrong_in_japanese(sites: Sites, open_page: OpenPage, axe: str, name: str) -> None:
    page = come(sites, open_page, STATES[name])
    page.context.add_cookies([{"name": "django_language", "value": "ja", "url": page.url}])
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    look(page, axe)
    if name == "empty":
        page.locator("#settings-button").click()
        look(page, axe)


def come(sites: Sites, open_page: OpenPage, state: State) -> Page:
    address = getattr(sites, state.site).url + state.path
    page = open_page(address, viewport=PHONE, reduced_motion="reduce", quiet=state.quiet)
    state.come(page)
    return page


def look(page: Page, axe: str) -> None:
    """At both widths, in both colour schemes."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for viewport in (PHONE, DESKTOP):
        page.set_viewport_size(viewport)
        for scheme in schemes:
            page.emulate_media(color_scheme=scheme)
            assert violations(page, axe) == [], (viewport, scheme)


@pytest.mark.parametrize("name", ["empty", "conversation", "several", "waiting", "refused", "settings", "account"])
def test_nothing_is_wider_than_the_page(sites: Sites, open_page: OpenPage, name: str) -> None:
    page = come(sites, open_page, STATES[name])
    for width in (320, 360, 412, 720, 721, 1024, 1280, 1920, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate(TOO_WIDE) == [], width
        column = page.locator("#text, main.account").first.bounding_box()
        assert column is not None
        assert column["width"] < 720


def test_the_switch_of_colours_stands_over_the_system_and_a_reload(sites: Sites, open_page: OpenPage) -> None:
    page = open_page(sites.quick.url, color_scheme="dark")
    paper = page.locator("body")
    dark = "rgb(26, 27, 26)"
    light = "rgb(251, 250, 247)"
    expect(paper).to_have_css("background-color", dark)
    page.get_by_role("radio", name="Light").check(force=True)
    for _ in range(2):
        expect(paper).to_have_css("background-color", light)
        expect(page.get_by_role("radio", name="Light")).to_be_checked()
        page.reload()
    assert '<html lang="en" dir="ltr"\n      data-theme="light"' in page.request.get(page.url).text()  # nothing flashes
    page.goto(f"{sites.quick.url}/account/sign-in/")
    expect(page.locator("body")).to_have_css("background-color", light)
    page.go_back()
    page.get_by_role("radio", name="As the system").check(force=True)
    expect(paper).to_have_css("background-color", dark)
    page.emulate_media(color_scheme="light")
    expect(paper).to_have_css("background-color", light)


def test_nothing_moves_for_who_wants_no_motion(sites: Sites, open_page: OpenPage) -> None:
    for motion, moving in (("no-preference", True), ("reduce", False)):
        page = open_page(sites.quick.url, reduced_motion=motion)
        ask(page, "Count")
        expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
        caret = page.evaluate(CARET)
        assert (caret != "none") is moving, caret
        assert bool(page.evaluate(MOVING)) is moving
        page.locator("#stop").click()


def test_text_of_either_direction_stands_on_its_side(sites: Sites, open_page: OpenPage) -> None:
    page = open_page(sites.quick.url)
    box = page.locator("#text")
    for text, side in (("مرحبا، كيف حالك؟", "right"), ("Hello", "left")):
        box.fill(text)
        assert side_in_box(page, "#text") == side
    echo(page, f"مرحبا\n\n{ARABIC}\n\nA sentence in English.\n\n- {ARABIC}\n- English\n\n```\nx = 1\n```")
    paragraphs = page.locator(".answer .text p")
    assert starts(paragraphs.nth(1)) == "right"
    assert starts(paragraphs.nth(2)) == "left"
    assert starts(page.locator(".answer li").nth(0)) == "right"
    assert starts(page.locator(".answer pre")) == "left"  # as wide as its line, code is on both sides
    echo(page, ARABIC)
    assert starts(page.locator(".answer p").last) == "right"
    page.get_by_role("button", name="Edit").last.click()
    page.locator(".question textarea").last.fill(ARABIC)
    assert side_in_box(page, ".question textarea") == "right"
    for each in page.locator("#list a, #title").all():
        expect(each).to_have_attribute("dir", "auto")


def starts(element: Locator) -> str:
    """The side at which its first line begins."""
    side: str = element.evaluate(STARTS)
    return side


def side_in_box(page: Page, selector: str) -> str:
    """The side at which the line in a box begins; only the browser itself knows where that is."""
    devtools = page.context.new_cdp_session(page)
    root = devtools.send("DOM.getDocument")["root"]["nodeId"]
    found = devtools.send("DOM.querySelector", {"nodeId": root, "selector": selector})
    described = devtools.send("DOM.describeNode", {**found, "depth": -1, "pierce": True})["node"]
    inside = described["shadowRoots"][0]["children"][-1]  # a placeholder comes before it
    [line] = [each for each in inside["children"] if each["nodeName"] == "#text"]
    outer, inner = (
        devtools.send("DOM.getContentQuads", {"backendNodeId": node["backendNodeId"]})["quads"][0]
        for node in (inside, line)
    )
    return "left" if inner[0] - outer[0] < outer[2] - inner[2] else "right"
