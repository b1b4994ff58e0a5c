"""How busy a long answer keeps the page: `python -m tests.load.answer`.

Streams one Markdown answer (headings, lists, tables, code) from a site on the synthetic backend into Chromium, and
reads from the browser how long its main thread worked for it, and how long it takes to draw the answer whole, as after
a reload. With `--frames` also how long it took between two frames,
which are then all drawn, sixty a second, whether anything is new or not: that is work of its own. The browser draws
without a GPU, on the same machine as the server.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, Page, expect, sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.server import Site

SECTION = """## Part {part}

The **sieve** crosses out the multiples of each prime; what is left are the primes. It needs *n log log n* steps and as
many bits as there are numbers, which is `n`, and is told about [there](https://example.org/sieve).

1. Begin with the first number that is not crossed out.
2. Cross out its multiples, from its square on.
   - those before were crossed out already

| n | primes |
|---|---|
| 1,000 | 168 |
| 1,000,000 | 78,498 |

```python
def primes(n: int) -> list[int]:
    sieve = bytearray([1]) * n
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = bytes(len(range(i * i, n, i)))
    return [i for i in range(2, n) if sieve[i]]
```

"""

FRAMES = """() => {
  window.gaps = [];
  let last = performance.now();
  const frame = (now) => {
    window.gaps.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""

WHOLE = """async (text) => {
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  const { Markdown } = await import(loaded.find((name) => /\\/markdown\\/markdown\\.[^/]*js$/.test(name)));
  const places = document.querySelectorAll(".answer .text");
  const place = places[places.length - 1];
  const began = performance.now();
  const markdown = new Markdown(place);
  markdown.append(text);
  markdown.end();
  const drawn = performance.now();
  place.getBoundingClientRect();
  return [drawn - began, performance.now() - drawn];
}"""
"""How many milliseconds it takes to draw a text in the place of the last answer, and then to lay it out."""

ASK = """(text) => {
  const box = document.querySelector("#text");
  box.value = text;
  box.dispatchEvent(new Event("input"));
  box.form.requestSubmit();
}"""


def text_of(tokens: int) -> str:
    """Markdown of so many synthetic tokens, which have four characters each."""
    sections = (SECTION.format(part=part) for part in range(1, tokens * 4 // len(SECTION) + 2))
    return "".join(sections)[: tokens * 4]


def busy(devtools: CDPSession) -> dict[str, float]:
    """Seconds the main thread has worked so far, in all and by kind."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics if metric["name"].endswith("Duration")}


def measure(page: Page, tokens: int, frames: bool) -> dict[str, Any]:
    devtools = page.context.new_cdp_session(page)
    devtools.send("Performance.enable", {"timeDomain": "threadTicks"})  # what it computed, not what it was kept from
    page.evaluate(ASK, "/echo ```python\nx = 1\n```")
    expect(page.locator(".answer:not(.live) .hljs-number")).to_have_count(1)
    if frames:
        page.evaluate(FRAMES)
    before, began = busy(devtools), time.perf_counter()
    page.evaluate(ASK, f"/echo {text_of(tokens)}")
    page.locator(".answer").nth(1).wait_for()
    expect(page.locator(".answer:not(.live)")).to_have_count(2, timeout=3_600_000)
    seconds, after = time.perf_counter() - began, busy(devtools)
    gaps = sorted(page.evaluate("window.gaps")) if frames else [0.0]
    return {
        "seconds": seconds,
        "busy": {name: after[name] - before[name] for name in after},
        "gap p50": gaps[len(gaps) // 2],
        "gap p99": gaps[int(len(gaps) * 0.99)],
        "gap max": gaps[-1],
        "over 50 ms": sum(gap > 50 for gap in gaps),
        "frames": len(gaps),
        "characters": len(page.locator(".answer .text").last.inner_text()),
        "whole": sorted(page.evaluate(WHOLE, text_of(tokens)) for _ in range(5))[2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--frames", action="store_true")
    options = parser.parse_args()
    environment = {
        "LLM_SYNTHETIC_RATE": str(options.rate),
        "LLM_MAX_NEW_TOKENS": str(options.tokens),
        "LLM_GENERATION_TIMEOUT": str(options.tokens / options.rate + 60),
        "CHAT_MESSAGE_MAX_CHARS": str(options.tokens * 4 + 100),
    }
    with tempfile.TemporaryDirectory(prefix="site-") as var, sync_playwright() as playwright:
        site = Site(Path(var), environment)
        site.prepare()
        site.start()
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            page = browser.new_page(viewport={"width": 1200, "height": 800})
            page.goto(site.url)
            found = measure(page, options.tokens, options.frames)
            browser.close()
        finally:
            site.stop()
    seconds, work = found["seconds"], found["busy"]
    print(f"{options.tokens} tokens, {found['characters']} characters in {seconds:.1f} s")
    parts = {"script": "Script", "layout": "Layout", "style": "RecalcStyle"}
    shares = ", ".join(f"{name} {work[f'{key}Duration'] / seconds:.1%}" for name, key in parts.items())
    drawn, laid = found["whole"]
    print(f"whole: drawn in {drawn:.0f} ms, laid out in {laid:.0f} ms")
    print(f"main thread: {work['TaskDuration'] / seconds:.1%} busy ({shares}), load {os.getloadavg()[0]:.1f}")
    if not options.frames:
        return
    gaps = ", ".join(f"{name} {found[f'gap {name}']:.0f} ms" for name in ("p50", "p99", "max"))
    print(f"between frames: {gaps}; {found['over 50 ms']} of {found['frames']} over 50 ms")


if __name__ == "__main__":
    main()
