"""How often text is drawn that comes faster than frames, and how long the page works at a long text in its box."""

from __future__ import annotations

from collections import Counter

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, ask
from tests.server import Serve, Site

TOKENS = 4000

COUNT = """() => {
  window.received = [];
  window.WebSocket = class extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("message", ({ data }) => {
        if (data.includes('"generation.delta"')) window.received.push(document.timeline.currentTime);
      });
    }
  };
}"""
"""Notes of each delta, as of each drawing below, the time of the frame that was made last or is being made."""

WATCH = """() => {
  window.drawn = [];
  new MutationObserver((changes) => {
    const text = document.querySelector(".answer.live .text");
    if (changes.some(({ target }) => text?.contains(target))) window.drawn.push(document.timeline.currentTime);
  }).observe(document.querySelector("#thread"), { subtree: true, childList: true, characterData: true });
}"""

JAM = """() => setInterval(() => {
  for (const until = performance.now() + 200; performance.now() < until; );
}, 300)"""
"""Deltas come together: a page that is busy for a while finds several when it is back."""

BARE = """<!doctype html><style>
  textarea { width: 700px; height: 200px; font: 16px/24px sans-serif }
</style><textarea></textarea>"""

LONG = ("word " * 15 + "\n") * 6_000

SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_MAX_NEW_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=1000)


def pasting(page: Page) -> float:
    """Seconds that the main thread computes for a long text that is pasted into the first box, and a key after it."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})

    def worked() -> float:
        found = devtools.send("Performance.getMetrics")["metrics"]
        return next(float(each["value"]) for each in found if each["name"] == "TaskDuration")

    page.bring_to_front()
    page.locator("textarea").first.focus()
    times = []
    for _ in range(3):
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
        page.evaluate(SETTLED)
        before = worked()
        for key in ("Control+V", "x"):
            page.keyboard.press(key)
            page.evaluate(SETTLED)
        times.append(worked() - before)
    assert len(page.locator("textarea").first.input_value()) == len(LONG) + 1
    return min(times)


def test_a_long_text_takes_the_box_no_longer_than_a_bare_one(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, permissions=["clipboard-read", "clipboard-write"])
    expect(page.locator("#model")).to_have_text("synthetic")
    page.evaluate("(text) => navigator.clipboard.writeText(text)", LONG)
    bare = open_page(f"{site.url}/healthz", beside=page)
    bare.set_content(BARE)
    assert pasting(page) < 1.5 * pasting(bare)


def test_an_answer_is_drawn_at_most_once_a_frame_however_much_comes(site: Site, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    page.add_init_script(f"({COUNT})()")
    page.goto(site.url)
    page.evaluate(WATCH)
    page.evaluate(JAM)
    ask(page, "Count")
    expect(page.locator(".answer:not(.live) .text")).to_contain_text(f" {TOKENS}")
    received, drawn = Counter(page.evaluate("window.received")), Counter(page.evaluate("window.drawn"))
    assert max(received.values()) > 3
    assert len(drawn) > 5
    assert max(drawn.values()) == 1
