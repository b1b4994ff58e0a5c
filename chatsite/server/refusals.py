"""Makes the answers to requests that never reach the site: short pages that nothing of the request is put into."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from http import HTTPStatus

SENTENCES: dict[int, tuple[str, str]] = {
    400: ("The server could not understand this request.", "サーバーがこのリクエストを理解できませんでした。"),
    403: ("There is nothing here to connect to.", "ここには接続できるものがありません。"),
    408: ("This request took too long to arrive.", "リクエストの到着に時間がかかりすぎました。"),
    413: ("This is more than may be sent here.", "送信できる量を超えています。"),
    414: ("This address is too long.", "アドレスが長すぎます。"),
    431: ("This request has too many headers, or too long ones.", "リクエストのヘッダーが多すぎるか、長すぎます。"),
    500: ("Something went wrong.", "問題が発生しました。"),
}
"""What is said of a status, in English and in Japanese: which one its reader understands was not looked at."""

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<h1>{title}</h1>
<p>{english}</p>
<p lang="ja">{japanese}</p>
"""

HEADERS = """\
Content-Type: text/html; charset=utf-8
Cache-Control: no-store
Content-Security-Policy: default-src 'none'
X-Content-Type-Options: nosniff
Connection: close
"""


@functools.cache
def page(status: int) -> bytes:
    """Return the page for an HTTP status code."""
    english, japanese = SENTENCES.get(status, SENTENCES[400 if status < 500 else 500])
    title = f"{status} {HTTPStatus(status).phrase}"
    return PAGE.format(title=title, english=english, japanese=japanese).encode()


def refusal(status: int, *, headers: Mapping[str, str] | None = None, body: bool = True) -> bytes:
    """Return the whole answer, as it is written to a connection that is closed after it; a HEAD gets no `body`."""
    found = page(status)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *HEADERS.splitlines(), f"Content-Length: {len(found)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (found if body else b"")
