"""What a model writes, drawn: Markdown, and nothing that runs or leaves the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import OpenPage
from tests.server import Serve, Site

MARKDOWN = """# Title

A *few* **words**, `code` and a [link](https://example.org/a?b=c).

- one
- two

| a | b |
|---|---|
| 1 | 2 |

```python
print("<b>")
```

> quoted
"""

HOSTILE = """<script>window.ran = 1</script>
<img src=x onerror="window.ran = 2"><svg onload="window.ran = 3">
<iframe srcdoc="<script>parent.ran = 4</script>"></iframe>

[a](javascript:window.ran=5) [b](JaVaScRiPt:window.ran=6) [c](data:text/html,<script>7</script>)
[d](/admin/) [e](//foreign.invalid/)

![f](https://foreign.invalid/f.png) ![g](javascript:window.ran=8) [h](  javascript:window.ran=9)
https://foreign.invalid/i

```"><script>window.ran = 10</script>
x
```

[good](mailto:ada@example.org)
"""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Echoes four characters a token, four hundred tokens a second."""
    return serve(LLM_SYNTHETIC_RATE=400)


def echoed(page: Page, text: str) -> None:
    page.locator("#text").fill(f"/echo {text}")
    page.locator("#text").press("Enter")
    expect(page.locator(".answer:not(.live)")).to_have_count(1)


def test_markdown_is_drawn_as_it_streams_and_again_after_a_reload(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echoed(page, MARKDOWN)
    for _ in range(2):
        answer = page.locator(".answer .text")
        expect(answer.locator("h1")).to_have_text("Title")
        expect(answer.locator("strong")).to_have_text("words")
        expect(answer.locator("li")).to_have_text(["one", "two"])
        expect(answer.locator("td")).to_have_text(["1", "2"])
        expect(answer.locator("pre code")).to_have_text('print("<b>")')
        expect(answer.locator("blockquote")).to_have_text("quoted")
        link = answer.locator("a")
        expect(link).to_have_attribute("href", "https://example.org/a?b=c")
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        page.reload()


def test_nothing_a_model_writes_runs_or_asks_another_host(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(site.url):
            asked.append(request.url)

    page.on("request", note)
    echoed(page, HOSTILE)
    for _ in range(2):
        expect(page.locator(".answer .text")).to_contain_text("<script>window.ran = 1</script>")
        expect(page.locator(".question .text")).to_contain_text("<script>window.ran = 1</script>")
        elements = page.locator(".thread").locator("script, img, svg, iframe, object, embed, style, form")
        expect(elements).to_have_count(0)
        addresses = page.locator(".thread a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        assert {address for address in addresses if address} <= {
            "https://foreign.invalid/f.png",
            "https://foreign.invalid/i",
            "mailto:ada@example.org",
        }
        assert page.locator(".thread [class*=script]").count() == 0
        for link in page.locator(".thread a:not([href])").all():
            link.click(force=True)
        assert page.evaluate("window.ran") is None
        page.reload()
    assert asked == []
