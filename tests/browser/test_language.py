"""The page in Japanese: whatever it shows, and with whom it speaks it."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from chat.management import translations
from tests.browser.conftest import OpenPage, ask
from tests.server import Serve, Site

OURS = "日本語 English Esc Enter Shift Ctrl JavaScript JSON Markdown Python Top-p Top-k Chat"
"""What is not Japanese and need not be: names of languages, keys, formats and settings."""

FOREIGN = """(ours) => {
  const found = [];
  const note = (text) => {
    const words = (text ?? "").match(/[A-Za-z][A-Za-z’'-]+/g) ?? [];
    if (words.some((word) => !ours.includes(word)) && !found.includes(text.trim())) found.push(text.trim());
  };
  const look = (root) => {
    for (const element of root.querySelectorAll("*")) {
      if (element.matches("script, style, noscript, .model, input[type=hidden]")) continue;
      for (const name of ["aria-label", "placeholder", "title", "alt"]) note(element.getAttribute(name));
      for (const node of element.childNodes) if (node.nodeType === Node.TEXT_NODE) note(node.data);
      if (element instanceof HTMLTemplateElement) look(element.content);
    }
  };
  look(document);
  return found;
}"""


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    for domain in translations.DOMAINS:
        translations.compile("ja", domain)
    return serve(LLM_SYNTHETIC_TOKENS=2000, LLM_SYNTHETIC_RATE=100, LLM_MAX_NEW_TOKENS=2000)


@pytest.mark.parametrize("path", ["/", "/account/sign-in/", "/account/sign-up/", "/c/no-such-page/"])
def test_whoever_reads_japanese_finds_nothing_else(site: Site, open_page: OpenPage, path: str) -> None:
    page = open_page(site.url + path, locale="ja-JP", quiet=True)
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    assert page.evaluate(FOREIGN, OURS.split()) == []


def test_what_scripts_say_is_japanese_too(site: Site, open_page: OpenPage, folder: Path) -> None:
    page = open_page(site.url, locale="ja-JP")
    expect(page.locator("#title")).to_have_text("新しいチャット")
    expect(page.locator("#nothing")).to_have_text("ここに会話の一覧が表示されます。")
    ask(page, "夕焼けが赤いのはなぜですか。")
    expect(page.locator(".answer.live .text")).to_contain_text("1 2 3")
    page.locator("#stop").click()
    expect(page.locator(".answer .note")).to_have_text("停止しました。")
    expect(page.locator("#list h2")).to_have_text("今日")
    page.screenshot(path=folder / "japanese.png")
    page.get_by_role("button", name="この会話の設定").click()
    page.get_by_label("温度").fill("9")
    page.get_by_role("button", name="保存").click()
    expect(page.locator("#settings .problem:not(:empty)")).to_have_count(1)
    page.screenshot(path=folder / "japanese-settings.png")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    assert page.evaluate(FOREIGN, [*OURS.split(), "synthetic"]) == []


def test_the_switch_stands_over_what_the_browser_asks_for(site: Site, open_page: OpenPage) -> None:
    page = open_page(site.url, locale="ja-JP")
    ask(page, "One")
    expect(page.locator(".question")).to_have_count(1)
    address = page.url
    page.get_by_role("button", name="English").click()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page).to_have_url(address)
    expect(page.locator("#title")).to_have_text("One")
    page.goto(f"{site.url}/account/sign-up/")
    expect(page.get_by_role("heading")).to_have_text("Sign up")
    page.get_by_role("button", name="日本語").click()
    expect(page).to_have_url(f"{site.url}/account/sign-up/")
    expect(page.get_by_role("heading")).to_have_text("アカウントを作成")
    french = open_page(site.url, locale="fr-FR")
    expect(french.locator("html")).to_have_attribute("lang", "en")
