"""One connection to the llm service: questions and their answers, streams and their events.

Knows the frames, not how the service is found or started (`llm.launch`), nor when to connect again (`llm.client`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from llm import wire
from llm.errors import Unavailable
from llm.events import Event, Finished
from llm.request import GenerationRequest

Answer = wire.Admitted | wire.Refused | wire.StatsReply

LOST = Finished(reason="error", code=Unavailable.code, message="The model's process ended during this answer.")


class Link:
    """Lives as long as its connection. When that breaks, every question and every stream gets its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames = wire.read_frames(reader, wire.service_frames)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._streams: dict[int, Callable[[Event], None]] = {}

    async def hello(self) -> wire.Hello | None:
        """The service's first frame; None if it left without one."""
        frame = await anext(self._frames, None)
        return frame if isinstance(frame, wire.Hello) else None

    async def frames(self) -> AsyncIterator[wire.ServiceFrame]:
        """Until the connection ends. What answers a question or belongs to a stream goes there."""
        async for frame in self._frames:
            match frame:
                case wire.Events(events=events):
                    for number, event in events:
                        self._deliver(number, event)
                case wire.Admitted(id=number) | wire.Refused(id=number) | wire.StatsReply(id=number):
                    asked = self._asked.pop(number, None)
                    if asked is not None and not asked.done():
                        asked.set_result(frame)
                case _:
                    yield frame

    async def ask(self, question: wire.Admit | wire.GetStats) -> Answer:
        """Raises Unavailable when the connection breaks before the answer."""
        if self._writer.is_closing():
            raise Unavailable("The model's process ended.")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[question.id] = answer
        self.send(question)
        return await answer

    def run(self, number: int, request: GenerationRequest, push: Callable[[Event], None]) -> None:
        if self._writer.is_closing():
            push(LOST)
            return
        self._streams[number] = push
        self.send(wire.Run(number, request))

    def send(self, frame: wire.ClientFrame) -> None:
        if not self._writer.is_closing():
            self._writer.write(wire.encode(frame))

    async def retire(self) -> None:
        """Ask the service to end, and wait until it has left."""
        self.send(wire.Retire())
        async for _ in self._frames:
            pass
        self.close()

    def close(self) -> None:
        self._writer.close()
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            if not answer.done():
                answer.set_exception(Unavailable("The model's process ended."))
        streams, self._streams = self._streams, {}
        for push in streams.values():
            push(LOST)

    def _deliver(self, number: int, event: Event) -> None:
        push = self._streams.pop(number, None) if isinstance(event, Finished) else self._streams.get(number)
        if push is not None:
            push(event)
