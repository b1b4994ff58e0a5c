"""A ticket ends once, whatever is still on its way when its link breaks."""

from __future__ import annotations

import asyncio
import socket

from llm.events import Delta, Finished
from llm.service import wire
from llm.service.link import Link
from llm.service.ticket import ServiceTicket
from tests.llm.scripted import request


async def test_what_arrives_after_a_cancel_over_a_broken_link_changes_nothing() -> None:
    """Writing has failed, while frames that came before are not read yet."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    link = Link(reader, writer)
    ticket = ServiceTicket(link, 1, "ada", lambda ticket: None)
    stream = ticket.run(request())
    for event in (Delta("late"), Finished(reason="stop")):
        reader.feed_data(wire.encode(wire.Events([(1, event)])))
    writer.transport.abort()
    ticket.cancel()
    assert [frame async for frame in link.frames()] == []
    link.close()
    theirs.close()
    assert [event async for event in stream] == [Finished(reason="cancelled")]
