"""Pictures of the main states, for whoever judges the page; `SCREENSHOTS` names the folder they go to.

Without it they go where the run's other files do. Those that the README shows are in chat/screenshots.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import DESKTOP, PHONE, OpenPage
from tests.browser.states import STATES, Sites, three_sites
from tests.server import Serve


@pytest.fixture(scope="module")
def sites(serve: Serve, browser: Browser) -> Iterator[Sites]:
    with three_sites(serve, browser) as sites:
        yield sites


@pytest.mark.parametrize("name", STATES)
def test_a_picture(sites: Sites, open_page: OpenPage, folder: Path, name: str) -> None:
    state = STATES[name]
    for viewport, suffix in ((DESKTOP, ""), (PHONE, "-phone")):
        address = getattr(sites, state.site).url + state.path
        page = open_page(address, viewport=viewport, reduced_motion="reduce", quiet=state.quiet)
        state.come(page)
        page.screenshot(path=folder / f"{name}{suffix}.png")
        page.emulate_media(color_scheme="dark")
        page.screenshot(path=folder / f"{name}{suffix}-dark.png")
        page.context.close()
