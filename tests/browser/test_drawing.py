"""How often text is drawn that comes faster than frames."""

from __future__ import annotations

from collections import Counter

from playwright.sync_api import expect

from tests.browser.conftest import OpenPage, ask
from tests.server import Serve

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


def test_an_answer_is_drawn_at_most_once_a_frame_however_much_comes(serve: Serve, open_page: OpenPage) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=TOKENS, LLM_MAX_NEW_TOKENS=TOKENS, LLM_SYNTHETIC_RATE=1000)
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
