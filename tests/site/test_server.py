"""The site as a process: routes, static files, and ends."""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.server import Serve, Site
from tests.visitor import Visitor


@pytest.fixture(scope="module")
def site(serve: Serve) -> Iterator[Site]:
    return serve(LLM_SYNTHETIC_TOKENS=300, LLM_SYNTHETIC_RATE=50)


def fetch(url: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:  # noqa: S310 our own
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def test_static_files_have_hashed_names_and_live_for_ever(site: Site) -> None:
    _, _, page = fetch(site.url)
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.decode())
    assert {path.rpartition(".")[2] for path in found} == {"css", "js", "svg"}
    for path in found:
        assert re.search(r"\.[0-9a-f]{12}\.(js|css|svg)$", path)
        status, headers, _ = fetch(site.url + path)
        assert status == 200
        assert "immutable" in headers["Cache-Control"]
        assert headers["X-Content-Type-Options"] == "nosniff"
    scripts = [path for path in found if path.endswith(".js")]
    for path in scripts:  # it grows by what they import
        status, _, script = fetch(site.url + path)
        assert status == 200
        assert re.search(r"\.[0-9a-f]{12}\.m?js$", path)
        imported = {urljoin(path, name) for name in re.findall(r'(?:from |import\()"(\.[^"]+)"', script.decode())}
        scripts += imported - set(scripts)
    assert {path.split("/")[2] for path in scripts} == {"chat", "vendor"}
    assert len(scripts) > 30


def test_pages_without_an_icon_of_their_own_get_the_sites(site: Site) -> None:
    status, headers, icon = fetch(f"{site.url}/favicon.ico")
    assert (status, headers["Content-Type"]) == (200, "image/svg+xml")
    assert icon.startswith(b"<svg")


def test_only_what_the_page_uses_of_a_package_is_served(site: Site) -> None:
    vendor = f"{site.url}/static/vendor"
    for name in ("markdown-it/markdown-it.esm.min.mjs", "katex/katex.min.js", "katex/fonts/KaTeX_Main-Regular.woff2"):
        assert fetch(f"{vendor}/{name}")[0] == 200
    for name in ("markdown-it.umd.min.js", "markdown-it.esm.min.mjs.map", "package.json"):
        assert fetch(f"{vendor}/markdown-it/{name}")[0] == 404
    for name in ("katex.mjs", "katex.js", "README.md", "contrib/copy-tex.min.js"):
        assert fetch(f"{vendor}/katex/{name}")[0] == 404
    assert fetch(f"{site.url}/static/../manage.py")[0] == 404
    assert fetch(f"{site.url}/static/chat/%2e%2e/%2e%2e/%2e%2e/secret_key")[0] == 404


def test_a_foreign_host_is_refused_in_one_line(site: Site) -> None:
    logged = len(site.log.read_text())
    status, headers, page = fetch(site.url, Host="evil.example")
    assert (status, "Set-Cookie" in headers) == (400, False)
    assert b"evil" not in page
    (line,) = site.log.read_text()[logged:].splitlines()
    assert "evil.example" in line


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/x-www-form-urlencoded", b"a=b&" * 1_001, 413),
        ("multipart/form-data; boundary=b", b"--b\r\n" * 3, 403),
        ("multipart/form-data; boundary=\xfc", b"", 400),
        ("multipart/form-data", b"", 400),
    ],
    ids=["many fields", "no fields", "a wrong boundary", "no boundary"],
)
def test_a_form_that_cannot_be_read_is_refused_on_a_page_and_in_one_line(
    site: Site, kind: str, body: bytes, status: int
) -> None:
    logged = len(site.log.read_text())
    headers = {"Content-Type": kind, "Cookie": f"csrftoken={'x' * 32}", "Accept-Language": "ja"}
    answered, told, page = fetch(f"{site.url}/account/sign-in/", body, **headers)
    assert (answered, told["Content-Type"]) == (status, "text/html; charset=utf-8")
    assert '<html lang="ja"' in page.decode()
    assert "default-src 'none'" in told["Content-Security-Policy"]
    assert len(site.log.read_text()[logged:].splitlines()) == 1


async def test_sockets_of_foreign_pages_and_of_unknown_addresses_are_refused(site: Site) -> None:
    address, logged = site.url.replace("http", "ws"), len(site.log.read_text())
    async with connect(f"{address}/ws/chat/", origin="http://evil.example") as socket:  # type: ignore[arg-type]
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{address}/ws/elsewhere/", origin=site.url)  # type: ignore[arg-type]
    assert refused.value.response.status_code == 403
    async with connect(f"{address}/ws/chat/", origin=site.url) as socket:  # type: ignore[arg-type]
        assert "no_session" in str(await socket.recv())
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    assert "Traceback" not in site.log.read_text()[logged:]


async def test_large_and_binary_frames_are_answered_over_the_network(site: Site) -> None:
    async with Visitor(site.url).socket() as socket:
        for frame in ("x" * 200_000, b"\x00\x01", "", "{"):
            await socket.connection.send(frame)
            if frame:  # daphne passes an empty one on to nobody
                assert (await socket.until("error"))["code"] in ("too_large", "bad_frame")
        assert (await socket.ask("ping"))["type"] == "pong"


async def test_killed_in_the_middle_the_next_process_ends_what_was_left(serve: Serve) -> None:
    site = serve(LLM_SYNTHETIC_TOKENS=300, LLM_SYNTHETIC_RATE=20)
    visitor = Visitor(site.url)
    async with visitor.socket() as socket:
        accepted = await socket.ask("message.send", text="Hello")
        await socket.until("generation.delta")
        await asyncio.to_thread(site.stop, 9)
    await asyncio.to_thread(site.start)
    branch = await visitor.json(f"/api/conversations/{accepted['conversation']}/")
    generation = branch["messages"][1]["generation"]
    assert (generation["state"], generation["code"]) == ("interrupted", "interrupted")
    async with visitor.socket() as socket:
        again = await socket.ask("message.send", text="Again", conversation=accepted["conversation"])
        assert again["type"] == "message.accepted"


def test_a_second_process_ends_with_one_line(site: Site) -> None:
    second = Site(site.var, {})
    second.log = site.var / "second"
    with pytest.raises(AssertionError, match=r"Cannot start: Process \d+ serves"):
        second.start()
    assert "Traceback" not in second.log.read_text()
    assert site.ready()
