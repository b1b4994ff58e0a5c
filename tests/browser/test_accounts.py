"""Accounts as one meets them: what was asked before signing up stays, and is there in another browser."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenPage, ask, echo
from tests.browser.states import NOBODYS, PASSWORD, sign_up_as
from tests.server import Serve, Site


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_RATE=200, CHAT_SIGN_INS_PER_MINUTE=0)


@pytest.fixture(scope="module")
def closed(serve: Serve) -> Site:
    """Nobody gets in without an account, and everyone may make one."""
    return serve(LLM_SYNTHETIC_RATE=200, CHAT_LOGIN_REQUIRED=1, CHAT_SIGN_UP=1)


@pytest.fixture
def name() -> str:
    return f"ada-{uuid4().hex[:8]}"


def sign_in_as(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.locator("main button").click()


def sign_out(page: Page) -> None:
    page.goto(f"{page.url.split('/account')[0].rstrip('/')}/account/")
    page.get_by_role("button", name="Sign out").click()


def test_signing_up_keeps_what_was_asked_and_signing_in_brings_it_along(
    site: Site, open_page: OpenPage, name: str
) -> None:
    page = open_page(site.url)
    echo(page, "Before the account")
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("link", name="Sign up").click()
    sign_up_as(page, name)
    expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(page.locator("#list a")).to_have_text(["/echo Before the account"])
    page.locator("#list a").click()
    expect(page.locator(".answer .text")).to_have_text("Before the account")
    echo(page, "With the account")

    elsewhere = open_page(site.url)
    echo(elsewhere, "From another browser")
    elsewhere.get_by_role("link", name="Sign in").click()
    sign_in_as(elsewhere, name)
    titles = ["/echo From another browser", "/echo Before the account"]
    expect(elsewhere.locator("#list a")).to_have_text(titles)
    elsewhere.locator("#list a").last.click()
    expect(elsewhere.locator(".answer .text")).to_have_text(["Before the account", "With the account"])
    page.reload()
    expect(page.locator("#list a")).to_have_text(titles)
    ask(page, "Count")  # both browsers are one visitor now
    expect(elsewhere.locator(".answer.live .text, .answer:nth-of-type(6) .text").last).to_contain_text("1 2 3")

    page.get_by_role("link", name=name).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("#nothing")).to_have_text("Your conversations will be listed here.")
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_new_password_signs_other_browsers_out(site: Site, open_page: OpenPage, name: str) -> None:
    page = open_page(f"{site.url}/account/sign-up/")
    sign_up_as(page, name)
    other = open_page(f"{site.url}/account/sign-in/", quiet=True)
    sign_in_as(other, name)
    echo(other, "Here")
    page.goto(f"{site.url}/account/")
    page.get_by_label("Old password").fill("not this one")
    page.get_by_label("New password", exact=True).fill("a walk in the hills")
    page.get_by_label("New password confirmation").fill("a walk in the hills")
    page.get_by_role("button", name="Change the password").click()
    expect(page.locator(".errorlist")).to_contain_text("incorrect")
    expect(page.get_by_label("Old password")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Old password").fill(PASSWORD)
    page.get_by_label("New password", exact=True).fill("a walk in the hills")
    page.get_by_label("New password confirmation").fill("a walk in the hills")
    page.get_by_role("button", name="Change the password").click()
    expect(page.get_by_role("status")).to_contain_text("Your password was changed.")
    other.goto(site.url)
    expect(other.get_by_role("link", name="Sign in")).to_be_visible()
    other.get_by_role("link", name="Sign in").click()
    sign_in_as(other, name)
    expect(other.locator(".errorlist")).to_be_visible()
    sign_in_as(other, name, "a walk in the hills")
    expect(other.locator("#list a")).to_have_text(["/echo Here"])


def test_where_an_account_is_required_one_comes_back_to_where_one_wanted_to_be(
    closed: Site, open_page: OpenPage, name: str
) -> None:
    page = open_page(closed.url)
    expect(page.get_by_role("heading")).to_have_text("Sign in")
    page.get_by_role("link", name="Sign up").click()
    sign_up_as(page, name)
    echo(page, "Inside")
    address = page.url
    elsewhere = open_page(address)
    expect(elsewhere.get_by_role("heading")).to_have_text("Sign in")
    sign_in_as(elsewhere, name)
    expect(elsewhere).to_have_url(address)
    expect(elsewhere.locator(".answer .text")).to_have_text("Inside")
    sign_out(open_page(f"{closed.url}/account/", beside=elsewhere))
    elsewhere.get_by_role("button", name="Reload").click()
    expect(elsewhere.get_by_label("Username")).to_be_visible()


def test_a_page_says_that_another_tab_signed_in_or_out_and_drafts_stay_with_who_wrote_them(
    site: Site, open_page: OpenPage, name: str, folder: Path
) -> None:
    page = open_page(site.url, quiet=True)  # the browser itself complains of what is another one's
    box, reload = page.locator("#text"), page.get_by_role("button", name="Reload")
    box.fill("Nobody's")
    other = open_page(f"{site.url}/account/sign-up/", beside=page)
    sign_up_as(other, name)
    expect(page.locator("#left-dialog")).to_contain_text("You have signed in or out")
    page.screenshot(path=folder / "left.png")
    page.keyboard.press("Escape")
    reload.click()
    expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(box).to_have_value("Nobody's")  # it goes along, as the conversations do
    echo(page, "Ada's question")
    box.fill("Ada's draft")
    sign_out(other)
    reload.click()
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()
    expect(page).to_have_url(f"{site.url}/")  # what was open is not found any more
    expect(box).to_have_value("")
    page.goto(f"{site.url}/account/sign-in/")
    sign_in_as(page, name)
    page.locator("#list a").click()
    expect(box).to_have_value("Ada's draft")


def test_where_nothing_is_found_the_way_back_is_shown(site: Site, open_page: OpenPage) -> None:
    page = open_page(f"{site.url}/c/{NOBODYS}/", quiet=True)
    expect(page.get_by_role("heading")).to_have_text("Not found")
    page.get_by_role("link", name="Back to the chat").click()
    expect(page.locator("#text")).to_be_visible()
