"""Serves one client of the llm service: reads its frames and follows the generations that it asked for.

A connection knows the controller, but neither the kind of socket nor when the service ends.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from llm.control.controller import GenerationController
from llm.control.generation import Generation
from llm.errors import Overloaded, RequestError
from llm.events import Event, Finished
from llm.service import wire

log = logging.getLogger(__name__)


class Connection:
    """One connected client; its generations end with it. `retire` is called if the client asks the service to leave."""

    def __init__(
        self,
        controller: GenerationController,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        retire: Callable[[Connection], None],
    ) -> None:
        self._controller = controller
        self._frames: AsyncIterator[wire.ClientFrame] = wire.read_frames(reader, wire.client_frames)
        self._writer = writer
        self._retire = retire
        self._generations: dict[int, Generation] = {}
        self._pending: list[tuple[int, Event]] = []

    async def knows(self, token: str) -> bool:
        """Return whether the client's first frame carries the token."""
        try:
            first = await anext(self._frames, None)
        except msgspec.DecodeError:
            return False
        return isinstance(first, wire.Login) and hmac.compare_digest(first.token.encode(), token.encode())

    async def serve(self) -> None:
        """Handle the client's frames until it is gone."""
        try:
            async for frame in self._frames:
                await self._handle(frame)
        except (msgspec.DecodeError, KeyError):
            log.exception("a client sent what makes no sense")
        finally:
            for generation in self._generations.values():
                generation.interrupt()
            self.close()

    def send(self, frame: wire.ServiceFrame) -> None:
        if not self._writer.is_closing():
            self._writer.write(wire.encode(frame))

    def close(self) -> None:
        self._writer.close()

    async def _handle(self, frame: wire.ClientFrame) -> None:
        match frame:
            case wire.Admit(id=number, visitor=visitor):
                await self._admit(number, visitor)
            case wire.Run(id=number, request=request):
                self._generations[number].run_into(request, lambda event: self._push(number, event))
            case wire.Cancel(id=number):
                self._cancel(number)
            case wire.GetStats(id=number):
                self.send(wire.StatsReply(number, await self._controller.stats()))
            case wire.Ping():
                self.send(wire.Pong())
            case wire.Retire():
                self._retire(self)
            case wire.Login():
                pass  # it has done so

    async def _admit(self, number: int, visitor: str) -> None:
        try:
            self._generations[number] = await self._controller.admit(visitor)
        except RequestError as error:
            size = error.queue_size if isinstance(error, Overloaded) else 0
            self.send(wire.Refused(number, error.code, error.message, error.retry_after, size))
        else:
            self.send(wire.Admitted(number))

    def _cancel(self, number: int) -> None:
        generation = self._generations.get(number)
        if generation is not None:
            generation.cancel()
            if generation.task is None:  # it will not be run, so no Finished takes it out
                del self._generations[number]

    def _push(self, number: int, event: Event) -> None:
        """Send an event to the client; all events of one turn of the loop go out in one frame."""
        if isinstance(event, Finished):
            del self._generations[number]
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append((number, event))

    def _flush(self) -> None:
        events, self._pending = self._pending, []
        self.send(wire.Events(events))
