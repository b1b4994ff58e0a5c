"""Where messages come from, as a site counts them that many people reach over the same few connections."""

from __future__ import annotations

import pytest

from tests.server import Serve, Site
from tests.visitor import Visitor

MESSAGES = 2
"""A minute of one address."""


@pytest.fixture(scope="module", params=["0", "1"], ids=["open", "behind a proxy"])
def behind_proxy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def site(serve: Serve, behind_proxy: str) -> Site:
    return serve(BEHIND_PROXY=behind_proxy, CHAT_MESSAGES_PER_MINUTE_PER_ADDRESS=MESSAGES, LLM_SYNTHETIC_TOKENS=1)


async def reply(site: Site, forwarded: str) -> str:
    """To the first message of a new visitor, whose connection says that it is forwarded for somebody."""
    async with Visitor(site.url).socket(headers={"X-Forwarded-For": forwarded}) as socket:
        frame = await socket.ask("message.send", text="Hello")
        return str(frame.get("code", frame["type"]))


async def test_an_address_is_what_the_proxy_says_and_never_what_a_client_says(site: Site, behind_proxy: str) -> None:
    """The last one in the header is the proxy's own observation; what stands before it anyone can write."""
    told = [await reply(site, f"192.0.2.{number}, 198.51.100.7") for number in range(MESSAGES + 1)]
    assert told == ["message.accepted"] * MESSAGES + ["rate_limited"]
    elsewhere = await reply(site, "198.51.100.7, 198.51.100.8")
    assert elsewhere == ("message.accepted" if behind_proxy == "1" else "rate_limited")
