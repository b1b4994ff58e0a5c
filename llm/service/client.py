"""Offers the interface of the GenerationController in any other process, over the llm service's socket.

A ServiceClient finds or starts the service, keeps the link alive, and sees to the requests of a link that broke: those
that had streamed nothing run again once, the streams of the others get their `Finished`. It belongs to one event loop;
`get_controller()` returns that loop's client.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import time
import weakref
from collections.abc import AsyncIterator
from typing import TypeGuard

import msgspec

from llm.conf import Settings, get_settings
from llm.errors import REQUEST_ERRORS, ConfigurationError, LLMError, Overloaded, RequestError, Unavailable
from llm.events import Stats, Status
from llm.service import launch, wire
from llm.service.link import Answer, Link
from llm.service.ticket import ServiceTicket
from llm.status import ModelStatus

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
"""Seconds that an admission may take before the visitor is told that the model is not reachable."""
HELLO_SECONDS = 60.0
"""Seconds in which a service has to answer a new client, even while it loads."""
BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds before the service is looked for, and started, again; the longer, the more often that was in vain."""
STEADY_SECONDS = 30.0
"""Seconds that a model has to be ready, or its end counts as one more start in vain."""
ABSENT_SECONDS = 1.0
"""The longest of these waits where only a look costs something: another one starts the service."""
REPLACEMENTS = 10


class ServiceClient(ModelStatus):
    """The client of one event loop. It connects at `connect()` or at the first `admit()`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings
        self._numbers = itertools.count(1)
        self._link: asyncio.Future[Link] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._orphans: list[ServiceTicket] = []
        self._reruns: set[asyncio.Task[None]] = set()
        self._ready_at: float | None = None
        """When the service of the present link said that its model is ready."""

    def connect(self) -> None:
        """Begin to find or start the service, and keep at it; `status` tells the progress. Idempotent."""
        if self._keeper is None:
            self._link = asyncio.get_running_loop().create_future()
            self._keeper = asyncio.create_task(self._keep())

    async def admit(self, visitor: str) -> ServiceTicket:
        async with _answering():
            link = await self._linked()
            number = next(self._numbers)
            try:
                answer = await link.ask(wire.Admit(number, visitor))
            except BaseException:
                link.send(wire.Cancel(number))  # nobody waits for that place any more
                raise
        if isinstance(answer, wire.Refused):
            raise _error(answer)
        return ServiceTicket(link, number, visitor, self._revive)

    async def stats(self) -> Stats:
        async with _answering():
            link = await self._linked()
            answer = await link.ask(wire.GetStats(next(self._numbers)))
        if not isinstance(answer, wire.StatsReply):
            raise Unavailable("The model's process does not answer.")
        return answer.stats

    async def aclose(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        self._give_up("The site is being stopped.")
        self._set_status(Status(state="down"))

    async def _linked(self) -> Link:
        self.connect()
        if self.status.state == "failed":
            raise Unavailable("The model cannot be loaded; the operator has to look at the log.")
        assert self._link is not None  # noqa: S101 connect() made it
        return await asyncio.shield(self._link)

    async def _keep(self) -> None:
        """Connect, serve the link until it breaks, and connect again. End only when that is hopeless."""
        failures = 0
        while True:
            longest, self._ready_at = BACKOFF[-1], None
            try:
                await self._serve_one_link()
            except ConfigurationError as error:
                self._set_status(Status(state="failed", message=str(error)))
                self._give_up("The model cannot be loaded; the operator has to look at the log.")
                return
            except (LLMError, OSError, msgspec.DecodeError) as error:
                log.warning("the llm service is not reachable: %s", error)
                self._set_status(Status(state="down", message=str(error)))
                longest = ABSENT_SECONDS if isinstance(error, launch.NobodyListens) else longest
            except Exception:
                log.exception("the link to the llm service failed")
                self._set_status(Status(state="down", message="The model's process cannot be reached."))
            failures = 0 if self._was_steady() else failures
            await asyncio.sleep(min(longest, BACKOFF[min(failures, len(BACKOFF) - 1)]))
            failures += 1

    def _was_steady(self) -> bool:
        """Return whether the last service has served for a while, so that it need not be waited for."""
        return self._ready_at is not None and time.monotonic() - self._ready_at >= STEADY_SECONDS

    def _give_up(self, message: str) -> None:
        """Fail everything that waits for a link."""
        self._abandon()
        if self._link is not None and not self._link.done():
            self._link.set_exception(Unavailable(message))
            self._link.exception()  # seen: there may be nobody waiting

    async def _serve_one_link(self) -> None:
        link, process = await self._open()
        assert self._link is not None  # noqa: S101 connect() made it
        self._link.set_result(link)
        guard = asyncio.create_task(self._guard(link))
        try:
            self._run_orphans(link)
            async for frame in link.frames():
                if isinstance(frame, wire.StatusChanged):
                    self._told(frame)
                    self._run_orphans(link)
        finally:
            guard.cancel()
            self._link = asyncio.get_running_loop().create_future()
            link.close()
        code = await process.exit_code(within=1) if process is not None else None
        if self.status.state == "failed" or code == os.EX_CONFIG:
            raise ConfigurationError(self.status.message or "the llm service ended because of its settings")
        loading = ", as it loaded the model: is there memory enough?" if self.status.state == "loading" else ""
        log.warning("the llm service is gone (%s%s); it is looked for again, or started", _in_words(code), loading)
        self._set_status(Status(state="down", message="The model's process ended."))

    def _told(self, frame: wire.Hello | wire.StatusChanged) -> None:
        """Take what the service says of its model. One that LLM_SERVICE names may come back with other settings."""
        self.model, self.defaults = frame.model, frame.defaults
        status = frame.status
        if status.state == "ready" and self._ready_at is None:
            self._ready_at = time.monotonic()
        if status.state == "failed" and self._settings.service:
            log.warning("the llm service at %s cannot start: %s", self._settings.service, status.message)
            status = msgspec.structs.replace(status, state="down")
        self._set_status(status)

    async def _guard(self, link: Link) -> None:
        await link.guard(self._settings.stall_seconds / 4, self._patience, kills=not self._settings.service)

    def _patience(self) -> float:
        """Return the seconds of silence allowed; more while the model loads."""
        return self._settings.stall_seconds * (launch.LOADING_PATIENCE if self.status.state == "loading" else 1)

    def _revive(self, ticket: ServiceTicket) -> None:
        """Keep a request that a death has hit before its first text, so that it runs again when the model is back."""
        if self._keeper is None or self._keeper.done():
            ticket.give_up()
            return
        self._orphans.append(ticket)
        asyncio.get_running_loop().call_later(self._settings.queue_timeout, self._give_up_on, ticket)

    def _give_up_on(self, ticket: ServiceTicket) -> None:
        if ticket in self._orphans:
            self._orphans.remove(ticket)
            ticket.give_up()

    def _abandon(self) -> None:
        orphans, self._orphans = self._orphans, []
        for ticket in orphans:
            ticket.give_up()

    def _run_orphans(self, link: Link) -> None:
        """Admit the kept requests again, in their old order and before anybody new, by sending the questions now."""
        if self.status.state != "ready":
            return
        orphans, self._orphans = [ticket for ticket in self._orphans if ticket.waits], []
        for ticket in orphans:
            number = next(self._numbers)
            answer = link.ask(wire.Admit(number, ticket.visitor))
            task = asyncio.create_task(_run_again(ticket, link, number, answer))
            self._reruns.add(task)
            task.add_done_callback(self._reruns.discard)

    async def _open(self) -> tuple[Link, launch.ServiceProcess | None]:
        """Return a link to a service with these settings; one with other settings is replaced if nobody uses it.

        Raises ConfigurationError, Unavailable, OSError, msgspec.DecodeError.
        """
        for _ in range(REPLACEMENTS):
            (reader, writer), process = await launch.connect_or_start(self._settings)
            link = Link(reader, writer)
            try:
                hello = await link.hello(self._settings.service_token, HELLO_SECONDS, kills=not self._settings.service)
                if self._fits(hello):
                    self._told(hello)
                    return link, process
                await link.retire()
            except BaseException:
                link.close()
                raise
        raise Unavailable("Other sites that share this var start the model with other settings, over and over.")

    def _fits(self, hello: wire.Hello | None) -> TypeGuard[wire.Hello]:
        """Return whether the service can be used, else it is to be replaced. Raises Unavailable, ConfigurationError."""
        service = self._settings.service
        if hello is None and service:
            raise Unavailable(f"{service} does not let this client in; see LLM_SERVICE_TOKEN, and the service's log.")
        if hello is None:
            raise Unavailable("The model's process was ending.")
        if hello.protocol == wire.PROTOCOL and (service or hello.fingerprint == self._settings.fingerprint):
            return True
        if service:
            raise Unavailable(f"{service} is of another version than this process.")
        if hello.others:
            raise ConfigurationError(
                f"an llm service with other settings (pid {hello.pid}) is in use for {self._settings.var}; "
                "stop the processes that use it or set another CHATSTREAM_VAR"
            )
        return False


@contextlib.asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    """Raise Unavailable if what is asked of the service within the context is not answered in time."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            yield
    except TimeoutError:
        raise Unavailable("The model's process does not answer.", retry_after=ANSWER_SECONDS) from None


async def _run_again(ticket: ServiceTicket, link: Link, number: int, answer: asyncio.Future[Answer]) -> None:
    try:
        admitted = isinstance(await answer, wire.Admitted)
    except Unavailable:
        admitted = False
    if admitted:
        ticket.run_again(link, number)
    else:
        ticket.give_up()


def _in_words(code: int | None) -> str:
    """Describe an exit code of `subprocess`; None if the process is not this one's child, or has not ended yet."""
    if code is None:
        return "the connection broke"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _error(refused: wire.Refused) -> RequestError:
    if refused.code == Overloaded.code:
        return Overloaded(refused.message, retry_after=refused.retry_after, queue_size=refused.queue_size)
    return REQUEST_ERRORS.get(refused.code, RequestError)(refused.message, retry_after=refused.retry_after)


_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ServiceClient] = weakref.WeakKeyDictionary()


def get_controller() -> ServiceClient:
    """Return the client of the running loop, made and connected on first use with the settings of this process."""
    loop = asyncio.get_running_loop()
    for ended in [other for other in _clients if other.is_closed()]:
        del _clients[ended]
    if loop not in _clients:
        _clients[loop] = ServiceClient(get_settings())
        _clients[loop].connect()
    return _clients[loop]
