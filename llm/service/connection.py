"""Serves one client of the llm service: lets it in, reads its frames and follows the generations that it asked for.

A connection knows the controller, but neither the kind of socket nor when the service ends. Whatever is wrong with one
request is the end of that request: the client's others share the connection.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable

import msgspec

from llm.control.controller import GenerationController
from llm.control.generation import FAILED, Generation
from llm.errors import InvalidRequest, Overloaded, RequestError, one_line
from llm.events import Event, Finished
from llm.service import wire

log = logging.getLogger(__name__)

LOGIN_SECONDS = 10.0
"""Seconds within which a client has to say who it is."""
MAX_UNREAD = wire.MAX_FRAME
"""Bytes that may wait for a client. One that has left so much unread takes nothing any more, and is cut off."""


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
        self._reader = reader
        self._writer = writer
        self._retire = retire
        self._generations: dict[int, Generation] = {}
        self._pending: list[tuple[int, Event]] = []

    async def knows(self, token: str) -> bool:
        """Return whether the client's first frame comes in time, is small and carries the token.

        The log says why not, but not of one that leaves without a word: those look whether somebody listens.
        """
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                body = await wire.read_body(self._reader, wire.MAX_LOGIN)
            if body is None:
                return False
            first = wire.client_frames.decode(body)
        except TimeoutError:
            problem = f"said nothing for {LOGIN_SECONDS:.0f} s"
        except (msgspec.DecodeError, RecursionError) as error:
            problem = f"sent what is no login ({one_line(error)})"
        else:
            if isinstance(first, wire.Login) and hmac.compare_digest(first.token.encode(), token.encode()):
                return True
            problem = "does not know the token"
        peer = self._writer.get_extra_info("peername") or "the socket"
        log.warning("A client at %s was not let in: it %s.", peer, problem)
        return False

    async def serve(self) -> None:
        """Handle the client's frames until it is gone."""
        try:
            while (body := await wire.read_body(self._reader)) is not None:
                await self._take(body)
        except msgspec.DecodeError as error:
            log.warning("A client sent what makes no sense and is cut off: %s", one_line(error))
        except Exception:
            log.exception("A client is cut off")
        finally:
            generations, self._generations = [*self._generations.values()], {}
            self.close()
            for generation in generations:
                generation.interrupt()

    def send(self, frame: wire.ServiceFrame) -> None:
        """Send a frame, if there is still somebody to send it to. Raises Unsendable."""
        if self._writer.is_closing():
            return
        self._writer.write(wire.encode(frame))
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            log.warning("A client reads nothing any more and is cut off.")
            self.abort()

    def close(self) -> None:
        """Close the connection when everything was sent; a client that does not read puts that off for ever."""
        self._writer.close()

    def abort(self) -> None:
        """Close the connection now."""
        self._writer.transport.abort()

    async def _take(self, body: bytes) -> None:
        """Handle a frame. A failure ends the request that the frame is about; DecodeError if it is about none."""
        try:
            await self._handle(wire.client_frames.decode(body))
        except msgspec.ValidationError as error:
            if (number := wire.number_of(body)) is None:
                raise
            self._fail(number, InvalidRequest(str(error)))
        except Exception:
            if (number := wire.number_of(body)) is None:
                raise
            log.exception("A frame of a client could not be handled")
            self._fail(number, RequestError(FAILED))

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
            self._refuse(number, error)
        else:
            self.send(wire.Admitted(number))

    def _refuse(self, number: int, error: RequestError) -> None:
        size = error.queue_size if isinstance(error, Overloaded) else 0
        self.send(wire.Refused(number, error.code, error.message, error.retry_after, size))

    def _fail(self, number: int, error: RequestError) -> None:
        """End what the client has under this number, be it a question or a request; of that nothing more is sent."""
        generation = self._generations.pop(number, None)
        if generation is not None:
            generation.cancel()
        self._refuse(number, error)
        self.send(wire.Events([(number, Finished(reason="error", code=error.code, message=error.message))]))

    def _cancel(self, number: int) -> None:
        generation = self._generations.get(number)
        if generation is not None:
            generation.cancel()
            if generation.task is None:  # it will not be run, so no Finished takes it out
                del self._generations[number]

    def _push(self, number: int, event: Event) -> None:
        """Send an event to the client; all events of one turn of the loop go out in one frame."""
        if number not in self._generations:
            return  # it has failed, or the client is gone
        if isinstance(event, Finished):
            del self._generations[number]
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.append((number, event))

    def _flush(self) -> None:
        events, self._pending = self._pending, []
        self._tell(events)

    def _tell(self, events: list[tuple[int, Event]]) -> None:
        """Send events, in as many frames as they take; one that fits no frame is the failure of its request."""
        try:
            self.send(wire.Events(events))
        except wire.Unsendable as error:
            if len(events) == 1:
                log.error("An event of a generation cannot be sent: %s", error)
                self._fail(events[0][0], RequestError(FAILED))
                return
            half = len(events) // 2
            self._tell(events[:half])
            self._tell(events[half:])
