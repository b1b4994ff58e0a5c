"""Holds a client's place at the llm service, and decides what becomes of its request when the service dies."""

from __future__ import annotations

from collections.abc import Callable

from llm.errors import Unavailable
from llm.event_stream import EventStream
from llm.events import Delta, Event, Finished
from llm.request import GenerationRequest
from llm.service import wire
from llm.service.link import Link
from llm.turns import bounded

LOST = Finished(reason="error", code=Unavailable.code, message="The model's process ended during this answer.")


class ServiceTicket:
    """A place that the client was given over one link.

    When the link breaks, a request that has streamed nothing is handed to `revive`, once: it may run again, from its
    beginning, and nobody notices but by the wait. A second death ends it, because the request itself may be what kills
    the service. A request that has streamed ends at once; its reader keeps the text.
    """

    def __init__(self, link: Link, number: int, visitor: str, revive: Callable[[ServiceTicket], None]) -> None:
        self.visitor = visitor
        self._link = link
        self._number = number
        self._revive = revive
        self._request: GenerationRequest | None = None
        self._stream: EventStream | None = None
        self._spoken = self._revived = self._cancelled = False

    def run(self, request: GenerationRequest) -> EventStream:
        if self._stream is not None:
            raise RuntimeError("a ticket is run once")
        self._request, self._stream = bounded(request), EventStream(self.cancel)
        if self._cancelled:
            self._end(Finished(reason="cancelled"))
        else:
            self._link.run(self._number, self._request, self)
        return self._stream

    def cancel(self) -> None:
        self._cancelled = True
        if self._link.open:
            self._link.send(wire.Cancel(self._number))
        elif self._stream is not None:
            self._end(Finished(reason="cancelled"))

    @property
    def waits(self) -> bool:
        """True while the request has been run and has not ended, so that it may be run again."""
        return self._stream is not None and not self._stream.ended

    def run_again(self, link: Link, number: int) -> None:
        """Run the request at a new place, the number `number` of `link`."""
        self._link, self._number = link, number
        if self._request is not None and self.waits:
            link.run(number, self._request, self)
        else:
            link.send(wire.Cancel(number))

    def give_up(self) -> None:
        """End the request: it cannot be run again."""
        self._end(LOST)

    # What the link calls (llm.service.link.Receiver)

    def receive(self, event: Event) -> None:
        self._spoken = self._spoken or isinstance(event, Delta)
        if isinstance(event, Finished):
            self._end(event)
        elif self._stream is not None and self.waits:  # what was still on its way when it ended comes too late
            self._stream.push(event)

    def lost(self) -> None:
        if self._cancelled:
            self._end(Finished(reason="cancelled"))
        elif self._spoken or self._revived:
            self._end(LOST)
        else:
            self._revived = True
            self._revive(self)

    def _end(self, end: Finished) -> None:
        if self.waits and self._stream is not None:
            self._stream.push(end)
