"""What a model writes, drawn: Markdown, and nothing that runs or leaves the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import OpenPage, ask, echo
from tests.browser.test_math import FORMULAS
from tests.server import Serve, Site

MARKDOWN = """# Title

A *few* **words**, `code` and a [link](https://example.org/a?b=c).

- one
- two

| a | b |
|---|---|
| 1 | 2 |

```python
def first(x: str) -> int:
    return "<b>" if x else 1  # why
```

> quoted

- [x] done
"""

PLAIN = """my_long_function_name and $PATH, arr[i] and [1], 10~20, README.md &copy; 2026 &amp;c
and a line of its own

See www.example.org/a, http://example.org or ada@example.org.

1) Code in an item:

   ~~~
   if x:
       y
   ~~~

| left | middle | right |  \r
|:---|:---:|---:|\r
| ~~1~~ | 2 | 3 |\r
\r
```sh\r
ls -l\r
```\r

- [ ] to do
- [x] done
"""

ARABIC = """مرحبا، هذا `x = 1` مثال:

```python
print("مرحبا")  # one
```

| اسم | عدد |
|---|---:|
| أ | 1 |
"""

HOSTILE = """<script>window.ran = 1</script>
<img src=x onerror="window.ran = 2"><svg onload="window.ran = 3">
<iframe srcdoc="<script>parent.ran = 4</script>"></iframe><details open ontoggle="window.ran = 11">
<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.ran=12&gt;">
<a href="javascript:window.ran=13">x</a><form action="https://foreign.invalid/"><button>y</button></form>
<link rel=stylesheet href=https://foreign.invalid/k.css><meta http-equiv=refresh content="0;url=https://foreign.invalid/">

[a](javascript:window.ran=5) [b](JaVaScRiPt:window.ran=6) [c](data:text/html,<script>7</script>)
[d](/admin/) [e](//foreign.invalid/) [j](vbscript:x) [l](java\tscript:window.ran=14) [m](&#106;avascript:window.ran=15)
[n](blob:https://foreign.invalid/x) [o](file:///etc/passwd) [p](\x01javascript:window.ran=16)

![f](https://foreign.invalid/f.png) ![g](javascript:window.ran=8) [h](  javascript:window.ran=9)
![q](https://foreign.invalid/q.png"onerror="window.ran=17) <https://foreign.invalid/i> <javascript:window.ran=18>

| <img src=x onerror=window.ran=19> | ![r](https://foreign.invalid/r.png) |
|---|---|
| <script>window.ran=20</script> | [s](javascript:window.ran=21) |

```"><script>window.ran = 10</script>
x
```

```html
<img src=https://foreign.invalid/t.png onerror="window.ran = 22"></code></pre><script>window.ran = 23</script>
```

```hljs"onmouseover="window.ran=24
y
```

[good](mailto:ada@example.org)

$$<img src=x onerror=window.ran=25>$$
"""

OBSERVE = """() => {
  window.touched = [];
  let finished = 0;
  const text = () => document.querySelector(".answer:last-child .text");
  new MutationObserver((records) => {
    for (const { target } of records) {
      const root = text();
      if (!root || !root.contains(target) || target === root) continue;
      let block = target;
      while (block.parentNode !== root) block = block.parentNode;
      const place = [...root.children].indexOf(block);
      if (place < finished) window.touched.push(place);
    }
    finished = Math.max(0, (text()?.children.length ?? 0) - 1);
  }).observe(document.querySelector("#thread"), {
    childList: true, characterData: true, attributes: true, subtree: true });
}"""


PIECES = """async (text) => {
  const loaded = performance.getEntriesByType("resource").map(({ name }) => name);
  const { Markdown } = await import(loaded.find((name) => /\\/markdown\\/markdown\\.[^/]*js$/.test(name)));
  const draw = (length) => {
    const element = document.createElement("div");
    const markdown = new Markdown(element);
    for (let end = 0; end < text.length; end += length) markdown.append(text.slice(end, end + length));
    markdown.end();
    return element.outerHTML;
  };
  const whole = draw(text.length);
  return [1, 2, 7, 40].filter((length) => draw(length) !== whole);
}"""
"""Returns the lengths of pieces in which a text is drawn otherwise than whole."""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    """Echoes four characters a token, a thousand tokens a second."""
    return serve(LLM_SYNTHETIC_RATE=1000, LLM_MAX_NEW_TOKENS=9000, CHAT_MESSAGE_MAX_CHARS=30_000)


def test_markdown_is_drawn_as_it_streams_and_again_after_a_reload(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, MARKDOWN)
    for _ in range(2):
        answer = page.locator(".answer .text")
        expect(answer.locator("h1")).to_have_text("Title")
        expect(answer.locator("strong")).to_have_text("words")
        expect(answer.locator("ul").first.locator("li")).to_have_text(["one", "two"])
        expect(answer.locator("th")).to_have_text(["a", "b"])
        expect(answer.locator("td")).to_have_text(["1", "2"])
        expect(answer.locator("pre code")).to_contain_text('return "<b>" if x else 1  # why')
        expect(answer.locator("pre .hljs-comment")).to_have_text("# why")
        expect(answer.locator("pre .hljs-string")).to_have_text('"<b>"')
        expect(answer.locator(".code .language")).to_have_text("python")
        expect(answer.locator("blockquote")).to_have_text("quoted")
        link = answer.locator("a")
        expect(link).to_have_attribute("href", "https://example.org/a?b=c")
        expect(link).to_have_attribute("rel", "noopener noreferrer")
        page.reload()


def test_plain_answers_say_what_was_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, PLAIN)
    answer = page.locator(".answer .text")
    expect(answer.locator("> p").first).to_contain_text(
        "my_long_function_name and $PATH, arr[i] and [1], 10~20, README.md © 2026 &c\nand a line of its own"
    )
    assert answer.locator("> p").first.evaluate("p => p.innerText.split('\\n').length") == 2
    addresses = answer.locator("a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
    assert addresses == ["http://www.example.org/a", "http://example.org", "mailto:ada@example.org"]
    expect(answer.locator("ol > li .code code")).to_have_text("if x:\n    y\n", use_inner_text=True)
    for place, side in enumerate(("left", "center", "right")):
        for cell in ("th", "td"):
            expect(answer.locator(cell).nth(place)).to_have_css("text-align", side)
    expect(answer.locator("td del")).to_have_text("1")
    expect(answer.locator("> .code code")).to_have_text("ls -l")
    expect(answer.locator("li.task")).to_have_text(["☐ to do", "☑ done"])


def test_code_in_an_answer_from_right_to_left_stays_left_to_right(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, ARABIC)
    expect(page.locator(".answer .hljs-comment")).to_be_visible()
    for selector in (".code", ".code .bar", ".code pre", ".code code", "p code"):
        expect(page.locator(f".answer {selector}").first).to_have_css("direction", "ltr")
    expect(page.locator(".answer .text")).to_have_css("direction", "rtl")
    language, button, code = (
        page.locator(f".answer .code {part}").bounding_box() for part in (".language", "button", ".hljs-built_in")
    )
    assert language is not None
    assert button is not None
    assert code is not None
    assert abs(language["x"] - code["x"]) < 4
    assert button["x"] > code["x"] + 100


def test_the_page_is_the_same_in_whatever_pieces_a_text_comes(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "```python\nif x:\n```\n\n$x$")  # what colours code and sets formulas is there
    expect(page.locator(".answer .hljs-keyword, .answer .katex")).to_have_count(2)
    for text in (MARKDOWN, PLAIN, ARABIC, HOSTILE, FORMULAS):
        assert page.evaluate(PIECES, text) == []


def test_headings_differ_in_size(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "# One\n\n## Two\n\n### Three\n\nText")
    parts = page.locator(".answer .text :is(h1, h2, h3, p)")
    sizes = parts.evaluate_all("all => all.map((each) => parseFloat(getComputedStyle(each).fontSize))")
    assert sizes == sorted(set(sizes), reverse=True)


def test_nothing_on_the_page_can_be_made_of_html(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, quiet=True)
    attempt = """() => {
      const element = document.createElement("p");
      try { element.innerHTML = "<b>x</b>"; } catch (error) { return error.name; }
      return element.innerHTML;
    }"""
    assert page.evaluate(attempt) == "TypeError"


def test_code_and_answers_are_copied_as_they_were_written(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    echo(page, MARKDOWN)
    page.locator(".code button").click()
    expect(page.locator("#announced-status")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == 'def first(x: str) -> int:\n    return "<b>" if x else 1  # why'
    page.locator(".answer [data-does=copy]").click()
    expect(page.locator(".answer [data-does=copy].done")).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN


def test_what_is_too_long_or_not_named_or_unknown_is_not_coloured(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    long = "if 1: pass; " * 1_800
    codes = (("none", "if x"), ("", "if x:\n    return None"), ("python", long), ("python", "if y:"))
    blocks = (f"```{name}\n{code}\n```" for name, code in codes)
    echo(page, "\n\n".join(blocks))
    expect(page.locator("pre").last.locator(".hljs-keyword")).to_have_text("if")
    expect(page.locator("pre .hljs-keyword")).to_have_count(1)


def test_code_that_was_cut_off_is_coloured_too(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, "```python\nif x:\n    return 1")
    expect(page.locator("pre .hljs-keyword")).to_have_text(["if", "return"])


def test_finished_blocks_are_never_touched_again(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    echo(page, MARKDOWN)  # the highlighter is there
    page.evaluate(OBSERVE)
    ask(page, f"/echo {MARKDOWN * 6}")
    expect(page.locator(".answer:last-child:not(.live) blockquote")).to_have_count(6)
    assert page.evaluate("window.touched") == []
    assert page.locator(".answer:last-child .text > *").count() > 40


def test_nothing_a_model_writes_runs_or_asks_another_host(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    asked: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith(site.url):
            asked.append(request.url)

    page.on("request", note)
    echo(page, HOSTILE)
    for _ in range(2):
        expect(page.locator(".answer .text")).to_contain_text("<script>window.ran = 1</script>")
        expect(page.locator(".question .text")).to_contain_text("<script>window.ran = 1</script>")
        expect(page.locator(".answer .hljs-tag").first).to_be_visible()
        assert_harmless(page)
        page.reload()
    assert asked == []


def assert_harmless(page: Page) -> None:
    drawn = page.locator(".thread .text")
    foreign = "script, img, svg, iframe, object, embed, style, link, meta, form, details, math, input, button"
    expect(drawn.locator(f":is({foreign}):not(.bar *, .math *)")).to_have_count(0)
    assert_set(page)
    addresses = drawn.locator("a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
    assert {address for address in addresses if address and not address.startswith("https://foreign.invalid/")} == {
        "mailto:ada@example.org"
    }
    attributes = drawn.locator("*:not(.bar *, .math *)").evaluate_all(
        "elements => elements.flatMap((element) => element.getAttributeNames())"
    )
    allowed = {"href", "rel", "target", "class", "tabindex", "data-language", "data-source", "start"}
    assert set(attributes) <= allowed
    classes = drawn.locator("[class]:not(.bar *, .math *)").evaluate_all(
        "all => all.flatMap((each) => [...each.classList])"
    )
    assert {name for name in classes if not name.startswith(("hljs-", "language-", "function_", "class_"))} <= {
        "code",
        "bar",
        "table",
        "math",
        "display",
        "language_",
    }
    for link in drawn.locator("a:not([href])").all():
        link.click(force=True)
    assert page.evaluate("window.ran") is None


def assert_set(page: Page) -> None:
    """What KaTeX makes shows something, and does nothing."""
    made = page.locator(".answer .math *")
    names = made.evaluate_all("all => all.map((each) => each.localName)")
    assert "annotation" in names
    assert not set(names) & {"a", "img", "image", "script", "iframe", "style", "link", "form", "foreignObject", "use"}
    attributes = set(made.evaluate_all("all => all.flatMap((each) => each.getAttributeNames())"))
    assert not [name for name in attributes if name.startswith("on") or name in ("href", "src", "xlink:href", "id")]


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=window.ran=1>", "“><script>window.ran=1</script>", "&lt;b&gt; {{7*7}}"]
)
def test_what_a_visitor_writes_is_text_everywhere(site: Site, open_page: OpenPage, text: str) -> None:
    page = open_page(site.url)
    echo(page, text)
    for _ in range(2):
        expect(page.locator(".question .text")).to_have_text(f"/echo {text}")
        expect(page.locator("#title")).to_have_text(f"/echo {text}")
        expect(page.locator("#list a")).to_have_text(f"/echo {text}")
        assert page.evaluate("window.ran") is None
        page.reload()
    expect(page).to_have_title(f"/echo {text}")


def test_hostile_titles_settings_searches_and_comments_are_text(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url)
    asked: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(site.url) else asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    title = "<img src=//foreign.invalid onerror=window.ran=1>"
    echo(page, "x")
    page.locator("#list button").press("Enter")
    page.get_by_role("menuitem", name="Rename").press("Enter")
    page.keyboard.type(title)
    page.keyboard.press("Enter")
    page.locator("#settings-button").click()
    page.locator("[name=system]").fill(HOSTILE)
    page.locator("#settings").get_by_role("button", name="Save").click()
    expect(page.locator("#settings")).to_be_hidden()
    page.get_by_role("button", name="Bad answer").click()
    page.get_by_label("Comment on this answer").fill(HOSTILE)
    page.keyboard.press("Enter")
    page.locator("#search").fill("<img src=//foreign.invalid")
    for _ in range(2):
        expect(page.locator("#list a")).to_have_text(title)
        expect(page.locator("#title")).to_have_text(title)
        page.locator("#settings-button").click()
        expect(page.locator("[name=system]")).to_have_value(HOSTILE)
        page.keyboard.press("Escape")
        page.reload()
    page.locator("#list button").press("Enter")
    for kind in ("Markdown", "JSON"):
        item = page.get_by_role("menuitem", name=f"Export as {kind}")
        answer = page.request.get(f"{site.url}{item.get_attribute('href')}")
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "html" not in answer.headers["content-type"]
    page.get_by_role("menuitem", name="Delete").press("Enter")
    expect(page.locator(".toast .said")).to_contain_text("<img src=//foreign")
    assert page.locator("img, script[src*=foreign]").count() == 0
    assert page.evaluate("window.ran") is None
    assert asked == []
