"""Every sentence has its translation, and a page comes in the language of its visitor."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from django.test import Client

from chat.management import translations

BOTH = pytest.mark.parametrize(
    ("language", "domain"),
    [(language, domain) for language in translations.languages() for domain in translations.DOMAINS],
)


@BOTH
def test_a_catalogue_has_the_sentences_of_the_sources_and_no_others(language: str, domain: str) -> None:
    found = {message.id for message in translations.read(language, domain) if message.id}
    wanted = {message.id for message in translations.sources(domain) if message.id}
    assert len(wanted) > 50
    assert found == wanted, "`make messages` brings them up to date"


@BOTH
def test_every_sentence_is_translated_with_all_it_names(language: str, domain: str) -> None:
    for message in translations.read(language, domain):
        if not message.id:
            continue
        ids = message.id if isinstance(message.id, tuple) else (message.id,)
        strings = message.string if isinstance(message.string, tuple) else (message.string,)
        for text in strings:
            assert text, message.id
            assert not message.fuzzy, message.id
            assert names(text) == names(ids[-1]), message.id


def names(text: str) -> list[str]:
    return sorted(re.findall(r"\{\w+\}|%\(\w+\)\w", text))


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("compiled")
def test_the_browser_says_which_language_and_the_switch_another(client: Client) -> None:
    def page(**headers: str) -> str:
        return client.get("/", headers=headers).content.decode()

    assert '<html lang="en"' in page()
    japanese = page(accept_language="ja,en;q=0.5")
    assert '<html lang="ja"' in japanese
    assert "新しいチャット" in japanese
    assert sentences(japanese)["Copied."] == "コピーしました。"
    assert sentences(page()) == {}
    answer = client.post("/language/", {"language": "ja", "next": "/account/sign-in/"})
    assert (answer.status_code, answer["Location"]) == (302, "/account/sign-in/")
    assert '<html lang="ja"' in page(accept_language="en")
    form = client.post("/account/sign-in/", {}).content.decode()
    assert "このフィールドは必須です。" in form
    assert 'value="en" lang="en">English' in form
    assert client.post("/language/", {"next": "https://elsewhere.example/"})["Location"] == "/"


def sentences(page: str) -> dict[str, str]:
    found = re.search(r'<script id="catalog" type="application/json">(.*?)</script>', page)
    assert found is not None
    catalog: dict[str, str] = json.loads(found[1])
    return catalog


NOT_SENTENCES = {"Enter", "Shift", "Esc", "Ctrl", "Top-p", "Top-k"}
"""Names of keys and parameters, which are the same in every language."""


class Words(HTMLParser):
    """What of a template is read by people."""

    READ = ("aria-label", "placeholder", "title", "alt")

    def __init__(self, template: str) -> None:
        super().__init__()
        self.found: list[str] = []
        rendered = re.sub(r"\{% blocktranslate.*?endblocktranslate %\}", "", template, flags=re.DOTALL)
        self.feed(re.sub(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", "", rendered, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in self.READ:
                self.handle_data(value or "")

    def handle_data(self, data: str) -> None:
        self.found += [word for word in re.findall(r"[A-Za-z][A-Za-z-]+", data) if word not in NOT_SENTENCES]


def test_templates_say_nothing_that_is_not_translated() -> None:
    said = {path.name: Words(path.read_text()).found for path in translations.APP.glob("templates/**/*.html")}
    assert len(said) > 10
    assert {name: found for name, found in said.items() if found} == {}


def test_scripts_say_nothing_that_is_not_translated() -> None:
    said = {path: sentences_of(path.read_text()) for path in translations.APP.glob("static/chat/js/**/*.js")}
    assert len(said) > 10
    assert {name: found for name, found in said.items() if found} == {}


def sentences_of(script: str) -> list[str]:
    """Its texts that look like sentences and do not pass through `t`."""
    code = re.sub(r"/\*.*?\*/|(?<=\s)//[^\n]*", "", script, flags=re.DOTALL)
    code = re.sub(r"\bt\(\s*\"[^\"]*\"", "", code)
    texts = re.findall(r"[\"'`]([A-Z][a-z’]+(?: [^\"'`]*)?)[\"'`]", code)
    return [text for text in texts if " " in text or text.endswith(".")]
