"""The states of the page that are looked at by tests of all of them: each is come to as a visitor would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from uuid import uuid4

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import ask, echo
from tests.server import Serve, Site

ANSWER = """Sunlight holds **every colour**. Air scatters the short, blue waves far more than the long, red ones:

1. By day, blue reaches you *from everywhere*.
2. At sunset the light's way is long, and mostly red is left.

| Colour | Wavelength | Scattered |
|---|---|---|
| blue | 450 nm | 4.4 times as much |
| red | 650 nm | 1 |

```python
def scattering(wavelength: float) -> float:
    return 1 / wavelength**4  # Rayleigh
```

> See [Rayleigh scattering](https://en.wikipedia.org/wiki/Rayleigh_scattering) for `the rest`.
"""

PASSWORD = "a long walk by the sea"

NOBODYS = "7b51a3ac-9dd2-4a3c-9b8e-4fb6b8a40a11"
"""No conversation has this id."""

LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"


class Sites(NamedTuple):
    """`quick` echoes at once, counts for long; `busy` has one place, which is taken; `full` has no queue either.

    Who fails to sign in at `full` has to wait.
    """

    quick: Site
    busy: Site
    full: Site


@contextmanager
def three_sites(serve: Serve, browser: Browser) -> Iterator[Sites]:
    slow = {
        "LLM_NUM_OF_CONCURRENT_EXECUTIONS": 1,
        "LLM_SYNTHETIC_TOKENS": 5000,
        "LLM_SYNTHETIC_RATE": 2,
        "LLM_MAX_NEW_TOKENS": 5000,
        "LLM_QUEUE_TIMEOUT": 3600,
        "LLM_GENERATION_TIMEOUT": 3600,
    }
    sites = Sites(
        serve(
            LLM_SYNTHETIC_RATE=500,
            LLM_SYNTHETIC_TOKENS=6000,
            LLM_MAX_NEW_TOKENS=6000,
            LLM_GENERATION_TIMEOUT=10,
            CHAT_SIGN_INS_PER_MINUTE=0,
        ),
        serve(**slow),
        serve(**slow, LLM_MAX_QUEUE_SIZE=0, CHAT_SIGN_INS_PER_MINUTE=1),
    )
    taken = [browser.new_page() for _ in (sites.busy, sites.full)]
    for page, site in zip(taken, (sites.busy, sites.full), strict=True):
        page.goto(site.url)
        ask(page, "First")
        expect(page.locator(".answer .text")).to_contain_text("1 2")
    yield sites
    for page in taken:
        page.context.close()


class State(NamedTuple):
    """`come(page)` leads there from the page at `path` of a site; of a `quiet` one the browser itself complains."""

    come: Callable[[Page], None]
    site: str = "quick"
    path: str = "/"
    quiet: bool = False


def empty(page: Page) -> None:
    expect(page.locator("#greeting")).to_be_visible()
    expect(page.locator("#nothing")).to_have_text("Your conversations will be listed here.")


def conversation(page: Page) -> None:
    echo(page, ANSWER)
    expect(page.locator(".answer .hljs-keyword").first).to_be_visible()
    expect(page.locator("#list a")).to_have_count(1)


def several(page: Page) -> None:
    """Many conversations, some with long titles, and long words in the one that is open."""
    for text in ("夕焼けが赤いのはなぜですか。", f"{LONG} {LONG}", "مرحبا، كيف حالك؟", "Plan a weekend by the sea"):
        page.locator("#new").evaluate("link => link.click()")  # on a phone it is in the drawer
        echo(page, text)
    page.locator("#new").evaluate("link => link.click()")
    echo(page, f"{LONG * 3}\n\n`{LONG * 2}`\n\n日本語の文章は、単語の間に空白を入れずに書かれます。")
    expect(page.locator("#list a")).to_have_count(5)


def formulas(page: Page) -> None:
    """A wide one, of which a part is out of sight, among them."""
    terms = " + ".join(f"a_{{{place}}}" for place in range(40))
    echo(page, f"Since $e^{{i\\pi}} + 1 = 0$, so is\n\n$$\n\\frac{{1}}{{2}}\n$$\n\nand\n\n\\[{terms}\\]")
    expect(page.locator(".answer .katex")).to_have_count(3)


def writing(page: Page) -> None:
    ask(page, "Count")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")


def waiting(page: Page) -> None:
    ask(page, "Why is the sky blue?")
    expect(page.locator(".answer .waiting .place")).to_contain_text("Waiting")


def refused(page: Page) -> None:
    ask(page, "Why is the sky blue?")
    expect(page.locator("#problem")).to_contain_text("Everyone is busy")


def stopped(page: Page) -> None:
    waiting(page)
    page.locator("#stop").click()
    expect(page.locator(".answer .note")).to_have_text("You left the queue.")


def failed(page: Page) -> None:
    ask(page, "/fail")
    expect(page.locator(".answer .note")).to_contain_text("Something went wrong")


def commenting(page: Page) -> None:
    echo(page, "A short one.")
    page.get_by_role("button", name="Bad answer").click()
    expect(page.get_by_label("Comment on this answer")).to_be_focused()


def editing(page: Page) -> None:
    echo(page, "A short one.")
    page.get_by_role("button", name="Edit").click()
    expect(page.locator(".question textarea")).to_be_focused()


def deleting(page: Page) -> None:
    echo(page, "A short one.")
    page.locator(".question").get_by_role("button", name="Delete").click()
    expect(page.locator("#delete-dialog")).to_be_visible()


def shortcuts(page: Page) -> None:
    page.keyboard.press("Control+/")
    expect(page.locator("#shortcuts")).to_be_visible()


def settings(page: Page) -> None:
    page.locator("#settings-button").click()
    expect(page.locator("#settings")).to_be_visible()


def wrong_settings(page: Page) -> None:
    settings(page)
    page.get_by_label("Temperature").fill("7")
    page.get_by_role("button", name="Save").click()
    expect(page.locator("#settings .problem:not(:empty)")).to_have_count(1)


def temporary(page: Page) -> None:
    page.get_by_role("button", name="Temporary chat").click()
    echo(page, "Nobody will know.")


def drawer(page: Page) -> None:
    several(page)
    if page.locator("#menu").get_attribute("aria-expanded") == "false":
        page.locator("#menu").click()
    expect(page.locator("#sidebar")).to_be_in_viewport(ratio=1)


def menu(page: Page) -> None:
    drawer(page)
    page.locator("#list button").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#conversation-menu")).to_be_visible()


def undo(page: Page) -> None:
    menu(page)
    page.get_by_role("menuitem", name="Delete").click()
    expect(page.locator("#toasts")).to_contain_text("was deleted")


def not_found(page: Page) -> None:
    drawer(page)
    page.locator("#search").fill("nowhere to be found")
    expect(page.locator("#nothing")).to_have_text("Nothing found.")


def sign_in(page: Page) -> None:
    expect(page.get_by_role("heading")).to_have_text("Sign in")


def sign_in_wrong(page: Page) -> None:
    page.get_by_label("Username").fill("nobody")
    page.get_by_label("Password").fill("wrong")
    page.locator("main button").click()
    expect(page.locator("main :is(.errorlist, [role=alert])")).to_be_visible()


def too_many(page: Page) -> None:
    """The first attempt is one too many where another test has had its own."""
    sign_in_wrong(page)
    if page.locator(".errorlist").count():
        sign_in_wrong(page)
    expect(page.get_by_role("heading")).to_have_text("Too many attempts")


def nowhere(page: Page) -> None:
    expect(page.get_by_role("heading")).to_have_text("Not found")


def sign_up(page: Page) -> None:
    expect(page.get_by_role("heading")).to_have_text("Sign up")


def account(page: Page) -> None:
    sign_up_as(page, f"ada-{uuid4().hex[:8]}")
    page.goto(page.url.rstrip("/") + "/account/")
    expect(page.get_by_role("heading").first).to_contain_text("Signed in as")


def sign_up_as(page: Page, name: str) -> None:
    """From the page with the form to the chat."""
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password confirmation").fill(PASSWORD)
    page.locator("main button").click()
    expect(page.locator("#text")).to_be_visible()


def left(page: Page) -> None:
    """Another tab of the browser signed up."""
    expect(page.locator("#model")).not_to_be_empty()
    other = page.context.new_page()
    other.goto(page.url + "account/sign-up/")
    sign_up_as(other, f"ada-{uuid4().hex[:8]}")
    page.bring_to_front()
    expect(page.locator("#left-dialog")).to_be_visible()


STATES = {
    "empty": State(empty),
    "conversation": State(conversation),
    "several": State(several),
    "formulas": State(formulas),
    "writing": State(writing),
    "waiting": State(waiting, "busy"),
    "refused": State(refused, "full"),
    "stopped": State(stopped, "busy"),
    "failed": State(failed),
    "commenting": State(commenting),
    "editing": State(editing),
    "deleting": State(deleting),
    "shortcuts": State(shortcuts),
    "settings": State(settings),
    "wrong-settings": State(wrong_settings),
    "temporary": State(temporary),
    "drawer": State(drawer),
    "menu": State(menu),
    "undo": State(undo),
    "not-found": State(not_found),
    "sign-in": State(sign_in, path="/account/sign-in/"),
    "sign-in-wrong": State(sign_in_wrong, path="/account/sign-in/"),
    "too-many": State(too_many, "full", "/account/sign-in/", quiet=True),
    "nowhere": State(nowhere, path=f"/c/{NOBODYS}/", quiet=True),
    "sign-up": State(sign_up, path="/account/sign-up/"),
    "account": State(account, path="/account/sign-up/"),
    "left": State(left),
}
