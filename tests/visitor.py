"""A visitor without a browser: fetches the page for its cookie, then talks over a real WebSocket."""

from __future__ import annotations

import asyncio
import http.cookiejar
import json
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Self
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect

Frame = dict[str, Any]


class Visitor:
    """One browser's cookies at one site; `url` ends without a slash."""

    def __init__(self, url: str) -> None:
        self.url = url
        # "Secure" cookies too, which a site behind a proxy sets: the proxy is not there, we are.
        policy = http.cookiejar.DefaultCookiePolicy(secure_protocols=("http",))
        self._cookies = http.cookiejar.CookieJar(policy)
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._cookies))

    def at(self, url: str) -> Visitor:
        """The same browser at another process of the site."""
        other = Visitor(url)
        other._cookies = self._cookies
        other._opener = self._opener
        return other

    async def get(self, path: str) -> str:
        def read() -> str:
            with self._opener.open(self.url + path, timeout=10) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(read)

    async def json(self, path: str) -> Any:
        return json.loads(await self.get(path))

    async def post(self, path: str, *, page: str = "", **form: str) -> str:
        """Send the form that is on `page`, by default on the one at `path`; the page that it leads to."""
        await self.get(page or path)
        token = next(cookie.value or "" for cookie in self._cookies if cookie.name == "csrftoken")
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token, **form}).encode()

        def send() -> str:
            with self._opener.open(self.url + path, body, timeout=10) as answer:
                return str(answer.read().decode())

        return await asyncio.to_thread(send)

    async def cookies(self) -> str:
        """The header's value; the first call fetches the page for it, once for each of the two cookies."""
        for _ in range(2):
            if not any(cookie.name == "sessionid" for cookie in self._cookies):
                await self.get("/")
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._cookies)

    @asynccontextmanager
    async def socket(self, *, session: bool = True, headers: Mapping[str, str] | None = None) -> AsyncIterator[Socket]:
        """An open socket, its `hello` and first `status` read; without `session` just open."""
        cookies = await self.cookies() if session else ""
        async with connect(
            self.url.replace("http", "ws", 1) + "/ws/chat/",
            origin=self.url,  # type: ignore[arg-type]
            additional_headers={"Cookie": cookies, **(headers or {})},
            max_size=None,
        ) as connection:
            socket = Socket(connection)
            if session:
                await socket.until("status")
            yield socket


class Socket:
    """Frames in both directions; `seen` has all that came."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[Frame] = []

    async def send(self, type: str, **fields: Any) -> str:
        id = str(fields.pop("id", uuid4().hex))
        await self.connection.send(json.dumps({"type": type, "id": id, **fields}))
        return id

    async def next(self) -> Frame:
        async with asyncio.timeout(60):
            self.seen.append(json.loads(await self.connection.recv()))
        return self.seen[-1]

    async def until(self, type: str, **fields: Any) -> Frame:
        """The next frame of this type with these fields; others before it are passed over."""
        while True:
            frame = await self.next()
            if frame["type"] == type and all(frame.get(name) == value for name, value in fields.items()):
                return frame

    async def ask(self, type: str, **fields: Any) -> Frame:
        """Send a frame; its one reply."""
        id = await self.send(type, **fields)
        while (frame := await self.next()).get("id") != id:
            pass
        return frame

    async def answer(self, accepted: Frame) -> Answer:
        """Read on to the end of the generation that was accepted."""
        await self.until("generation.finished", generation=accepted["generation"])
        return Answer([frame for frame in self.seen if _of(frame, accepted["generation"])])


def _of(frame: Frame, generation: str) -> bool:
    return frame["type"].startswith("generation.") and frame["generation"] == generation


class Answer:
    """What a socket was told of one generation from its beginning. Raises AssertionError on a gap or a repeat."""

    def __init__(self, frames: list[Frame]) -> None:
        deltas = [frame for frame in frames if frame["type"] == "generation.delta"]
        assert [delta["seq"] for delta in deltas] == list(range(len(deltas)))
        self.text = "".join(delta["text"] for delta in deltas)
        self.kinds = [frame["type"].removeprefix("generation.") for frame in frames]
        self.end = frames[-1]
        assert self.kinds.count("finished") == 1

    @classmethod
    async def to(cls, socket: Socket, text: str, **fields: Any) -> Self:
        accepted = await socket.ask("message.send", text=text, **fields)
        assert accepted["type"] == "message.accepted", accepted
        return await socket.answer(accepted)  # type: ignore[return-value]
