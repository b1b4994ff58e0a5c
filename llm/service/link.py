"""Carries one connection to the llm service: questions and their answers, streams and their events.

A link knows the frames, but neither how the service is found or started (`llm.service.launch`), nor what to do once it
is gone (`llm.service.client`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from llm.errors import InvalidRequest, Unavailable
from llm.events import Event, Finished
from llm.request import GenerationRequest
from llm.service import sockets, wire

log = logging.getLogger(__name__)

RETIRE_SECONDS = 10.0
"""Seconds that a service has to end; it takes fewer, whatever its other clients do."""

Answer = wire.Admitted | wire.Refused | wire.StatsReply


class Receiver(Protocol):
    """The ticket that follows one request, as a link sees it."""

    def receive(self, event: Event) -> None:
        """Take an event of the request; nothing follows `Finished`."""

    def lost(self) -> None:
        """Learn that the connection broke before the end of the request."""


class Link:
    """One connection. When it breaks, every open question and every receiver is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames = wire.read_frames(reader, wire.service_frames)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._receivers: dict[int, Receiver] = {}
        self._heard_at = time.monotonic()
        self._pid = 0
        """The service's process, if it is one of those that can be seen from here."""

    @property
    def open(self) -> bool:
        return not self._writer.is_closing()

    async def hello(self, token: str, within: float, *, kills: bool) -> wire.Hello | None:
        """Log in and return the service's first frame, None if the service left without one.

        One that has not answered `within` seconds is taken for hung, as `guard` does. Raises msgspec.DecodeError.
        """
        self._pid = sockets.peer_pid(self._writer.get_extra_info("socket"))
        self.send(wire.Login(token))
        try:
            async with asyncio.timeout(within):
                frame = await anext(self._frames, None)
        except TimeoutError:
            self._end_silent(within, kills=kills)
            return None
        if not isinstance(frame, wire.Hello):
            return None
        if sockets.TOLD_ONLY:
            self._pid = frame.pid
        return frame

    async def frames(self) -> AsyncIterator[wire.ServiceFrame]:
        """Yield frames until the connection ends, but for those that answer a question or belong to a receiver."""
        async for frame in self._frames:
            self._heard_at = time.monotonic()
            match frame:
                case wire.Events(events=events):
                    for number, event in events:
                        self._deliver(number, event)
                case wire.Admitted(id=number) | wire.Refused(id=number) | wire.StatsReply(id=number):
                    asked = self._asked.pop(number, None)
                    if asked is not None and not asked.done():
                        asked.set_result(frame)
                case wire.Pong():
                    pass
                case _:
                    yield frame

    async def guard(self, every: float, patience: Callable[[], float], *, kills: bool) -> None:
        """Ping the service every `every` seconds; break the connection once it says nothing for `patience()` seconds.

        Such a service is stopped, or hung in native code, and its requests are lost either way. With `kills` it runs on
        this machine and is killed, so that it can be started again; else whoever runs it has to do that. Time in which
        this process itself stood still (it was stopped, its loop computed) does not count: nobody listened then.
        """
        while True:
            due = time.monotonic() + every
            await asyncio.sleep(every)
            now = time.monotonic()
            self._heard_at = min(now, self._heard_at + max(0.0, now - due))
            if (silent := now - self._heard_at) > patience():
                self._end_silent(silent, kills=kills)
                return
            self.send(wire.Ping())

    def _end_silent(self, seconds: float, *, kills: bool) -> None:
        """Break the connection to a service that hangs; with `kills`, end its process."""
        log.warning(
            "the llm service (pid %s) has said nothing for %.0f s", self._pid or "not of this container", seconds
        )
        self._writer.transport.abort()
        if kills and self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended; it is another user's
                os.kill(self._pid, signal.SIGKILL)

    def ask(self, question: wire.Admit | wire.GetStats) -> asyncio.Future[Answer]:
        """Send a question at once. Its answer is a future.

        The future raises Unavailable if the connection breaks first, InvalidRequest if the question cannot be sent.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if not self.open:
            answer.set_exception(Unavailable("The model's process ended."))
            return answer
        try:
            self.send(question)
        except wire.Unsendable as error:
            answer.set_exception(InvalidRequest(str(error)))
        else:
            self._asked[question.id] = answer
        return answer

    def run(self, number: int, request: GenerationRequest, receiver: Receiver) -> None:
        """Run the request at the place `number`. One that cannot be sent ends at once, and its place is given back."""
        if not self.open:
            receiver.lost()
            return
        try:
            self.send(wire.Run(number, request))
        except wire.Unsendable as error:
            self.send(wire.Cancel(number))
            receiver.receive(Finished(reason="error", code=InvalidRequest.code, message=str(error)))
        else:
            self._receivers[number] = receiver

    def send(self, frame: wire.ClientFrame) -> None:
        """Send a frame, if there is still somebody to send it to. Raises Unsendable."""
        if self.open:
            self._writer.write(wire.encode(frame))

    async def retire(self) -> None:
        """Ask the service to end, and wait until it has left, or does not."""
        try:
            self.send(wire.Retire())
            async with asyncio.timeout(RETIRE_SECONDS):
                async for _ in self._frames:
                    pass
        except TimeoutError:
            log.warning("the llm service (pid %d) was asked to end and has not left", self._pid)
        finally:
            self.close()

    def close(self) -> None:
        self._writer.close()
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(Unavailable("The model's process ended."))
        receivers, self._receivers = self._receivers, {}
        for _, receiver in sorted(receivers.items()):
            receiver.lost()

    def _deliver(self, number: int, event: Event) -> None:
        ended = isinstance(event, Finished)
        receiver = self._receivers.pop(number, None) if ended else self._receivers.get(number)
        if receiver is not None:
            receiver.receive(event)
