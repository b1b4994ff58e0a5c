"""A real browser, and pages in it that fail their test when anything is wrong in their console."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 640}

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing: apt-get install chromium")
    expect.set_options(timeout=15_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(var: Path) -> Path:
    """Where pictures go: the folder that `SCREENSHOTS` names, else one of this run."""
    path = Path(os.environ.get("SCREENSHOTS", var / "screenshots"))
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """`open_page(url)` in a browser of its own, `open_page(url, beside=page)` in another tab of the same.

    Further arguments are what Playwright knows of a browser: `viewport`, `locale`, `color_scheme`. A `quiet` page may
    complain in its console.
    """
    complaints: list[str] = []
    contexts = []

    def opened(url: str, *, beside: Page | None = None, quiet: bool = False, **options: Any) -> Page:
        context = beside.context if beside else browser.new_context(**{"viewport": DESKTOP, **options})
        contexts.append(context)
        page = context.new_page()
        if not quiet:
            page.on("console", complain)
            page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(url)
        return page

    def complain(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def ask(page: Page, text: str) -> None:
    expect(page.locator("#title")).not_to_be_empty()  # the scripts run
    page.locator("#text").fill(text)
    page.locator("#text").press("Enter")


def echo(page: Page, text: str) -> None:
    """Have the synthetic backend answer `text`, to its end."""
    answers = page.locator(".answer:not(.live)").count()
    ask(page, f"/echo {text}")
    expect(page.locator(".answer:not(.live)")).to_have_count(answers + 1)


def answer_of(page: Page) -> str:
    return page.locator(".answer .text").last.inner_text().strip()
