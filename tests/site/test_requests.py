"""Requests that are larger, slower or stranger than anyone needs: what they get, and what the others notice."""

from __future__ import annotations

import asyncio
import http.client
import json
import select
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
from daphne.ws_protocol import WebSocketFactory
from django.conf import settings
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from chatsite.server import refusals, requests
from chatsite.server.sockets import ChatSocket
from tests.raw import TEXT, masked, opening
from tests.server import Serve, Site

MiB = 2**20
STRANGERS = 10
MEMORY = 20 * MiB
DELAY = 3.0
"""Seconds another request may take beside them; on a free machine it is a few hundredths of one."""

JQUERY = "admin/js/vendor/jquery/jquery.js"
PIECE = b"a=b&" * (16 * 1024)


@pytest.fixture(scope="module")
def site(serve: Serve) -> Site:
    return serve(LLM_SYNTHETIC_TOKENS=10)


@pytest.fixture(scope="module")
def impatient(serve: Serve) -> Site:
    """Two seconds where the other has sixty."""
    return serve(program="tests/site/impatient.py", LLM_SYNTHETIC_TOKENS=10)


Connect = Callable[[Site], socket.socket]


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened: list[socket.socket] = []

    def connected(site: Site) -> socket.socket:
        address = urlsplit(site.url)
        opened.append(socket.create_connection((address.hostname, address.port), timeout=30))
        return opened[-1]

    yield connected
    for each in opened:
        each.close()


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The next answer: its status, headers and body."""
    found = http.client.HTTPResponse(connection)
    found.begin()
    return found.status, dict(found.headers), found.read()


def head(line: str, **headers: object) -> bytes:
    lines = [line, "Host: localhost", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Beside:
    """Asks for `/healthz` again and again while something goes on, and watches the server's memory."""

    def __init__(self, site: Site) -> None:
        assert site.process is not None
        self._address = urlsplit(site.url).netloc
        self._process = psutil.Process(site.process.pid)
        self._over = threading.Event()
        self._answered = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._ask)
        self.slowest = 0.0
        self.grown = 0

    def __enter__(self) -> Beside:
        self._before = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        print(f"slowest /healthz {self.slowest * 1e3:.0f} ms, memory {self.grown / MiB:+.1f} MiB")

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        while not self._over.wait(0.02):
            began = time.monotonic()
            self._look()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b"ok\n"
            self.slowest = max(self.slowest, time.monotonic() - began)
            self._look()
            self._answered.release()
        connection.close()

    def turns(self, count: int) -> None:
        """Wait until it was answered so many times."""
        for _ in range(count):
            assert self._answered.acquire(timeout=30)

    def _look(self) -> None:
        self.grown = max(self.grown, self._process.memory_info().rss - self._before)


def whole(size: int) -> Iterator[bytes]:
    yield head("POST /healthz HTTP/1.1", Content_Type="application/x-www-form-urlencoded", Content_Length=size)
    yield from (PIECE for _ in range(size // len(PIECE)))


def chunked(size: int) -> Iterator[bytes]:
    form = {"Content_Type": "application/x-www-form-urlencoded", "Transfer_Encoding": "chunked"}
    yield head("POST /account/sign-in/ HTTP/1.1", **form)
    yield from (b"%x\r\n%b\r\n" % (len(PIECE), PIECE) for _ in range(size // len(PIECE)))
    yield b"0\r\n\r\n"


def multipart(size: int) -> Iterator[bytes]:
    yield head("POST / HTTP/1.1", Content_Type="multipart/form-data; boundary=a", Content_Length=size)
    part = b'--a\r\nContent-Disposition: form-data; name="b"\r\n\r\nc\r\n' * 1000
    yield from (part for _ in range(size // len(part)))


@pytest.mark.parametrize("body", [whole, chunked, multipart])
def test_bodies_of_many_megabytes_are_refused_and_cost_the_others_nothing(
    site: Site, connect: Connect, body: Callable[[int], Iterator[bytes]]
) -> None:
    def ask(_: int) -> tuple[int, dict[str, str], bytes]:
        connection = connect(site)
        for piece in body(20 * MiB):  # to the end before it reads, as most do
            connection.sendall(piece)
        return answer(connection)

    with Beside(site) as beside, ThreadPoolExecutor(STRANGERS) as strangers:
        answers = list(strangers.map(ask, range(STRANGERS)))
    assert [status for status, _, _ in answers] == [413] * STRANGERS
    assert all(headers["Connection"] == "close" for _, headers, _ in answers)
    assert {page for _, _, page in answers} == {refusals.page(413)}
    assert beside.slowest < DELAY
    assert beside.grown < MEMORY


def test_a_body_is_taken_up_to_the_bound_and_not_beyond(site: Site, connect: Connect) -> None:
    """Refused means before Django: its own check of the form's token answers what is not."""
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    for size, status in ((most, 403), (most + 1, 413), ("9" * 5000, 413)):
        connection = connect(site)
        connection.sendall(head("POST /account/sign-in/ HTTP/1.1", Content_Length=size) + b"a" * most)
        assert answer(connection)[0] == status


def test_who_asks_before_sending_a_large_body_sends_nothing(site: Site, connect: Connect) -> None:
    connection = connect(site)
    connection.sendall(head("POST / HTTP/1.1", Content_Length=MiB, Expect="100-continue"))
    assert answer(connection)[0] == 413


STRANGE = {
    "a long address": (head("GET /" + "a" * 20_000 + " HTTP/1.1"), 414),
    "a long header": (head("GET / HTTP/1.1", a="b" * 20_000), 431),
    "many headers": (head("GET / HTTP/1.1", **{f"a{number}": "b" for number in range(200)}), 431),
    "a folded header": (b"GET / HTTP/1.1\r\na:b\r\n" + b" \r\n" * 10_000, 400),
    "a control character": (head("GET / HTTP/1.1", a="\x1c"), 400),
    "a long type": (head("GET / HTTP/1.1", Content_Type="a" + ";" * 10_000), 400),
    "a type in an unknown code": (head("GET / HTTP/1.1", Content_Type="a; b*=no-such-code''c"), 400),
    "no chunk": (head("POST / HTTP/1.1", Transfer_Encoding="chunked") + b"x\r\n", 400),
    "a body in crumbs": (head("POST / HTTP/1.1", Transfer_Encoding="chunked") + b"1\r\na\r\n" * 2_000, 400),
    "an unknown coding": (head("POST / HTTP/1.1", Transfer_Encoding="gzip"), 400),
    "another protocol": (b"\x16\x03\x01\r\n", 400),
    "no key of a socket": (head("GET /ws/chat/ HTTP/1.1", Upgrade="websocket", Connection="Upgrade"), 400),
    "another method at a socket": (head("PUT /ws/chat/ HTTP/1.1", Upgrade="websocket", Connection="Upgrade"), 405),
}


@pytest.mark.parametrize(("sent", "status"), STRANGE.values(), ids=STRANGE)
def test_what_is_no_request_of_this_site_gets_a_short_page(
    site: Site, connect: Connect, sent: bytes, status: int
) -> None:
    logged = len(site.log.read_text())
    connection = connect(site)
    connection.sendall(sent)
    found, headers, page = answer(connection)
    assert (found, headers["Connection"], page) == (status, "close", refusals.page(status))
    assert connection.recv(1) == b""  # the server is done, though it would still read
    assert "Traceback" not in site.log.read_text()[logged:]


def test_a_head_request_is_refused_without_a_page(site: Site, connect: Connect) -> None:
    for sent in (head("HEAD / HTTP/1.1", Content_Length=MiB), head("HEAD / HTTP/1.1", a="\x1c")):
        connection = connect(site)
        connection.sendall(sent)
        assert connection.recv(MiB).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["/", "/healthz", "/ws/chat/"])
def test_cookies_that_are_long_to_read_are_not_read(site: Site, connect: Connect, path: str) -> None:
    """Python undoes 16 KB of backslashes in a second, which at a socket is the event loop's."""
    cookies = f'a="{chr(92) * 15_000}"; theme=dark'
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": 13, "Origin": site.url}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    strangers = [connect(site) for _ in range(STRANGERS)]
    with Beside(site) as beside:
        for each in strangers:
            each.sendall(head(f"GET {path} HTTP/1.1", Cookie=cookies, **(upgrade if path == "/ws/chat/" else {})))
        answers = [each.recv(4096) for each in strangers]
    assert {each.split()[1] for each in answers} <= {b"200", b"101"}
    assert beside.slowest < DELAY


def test_requests_in_one_go_are_answered_no_faster_than_they_are_read(site: Site, connect: Connect) -> None:
    count, connection, asked = 150, connect(site), f"GET {large(site)} HTTP/1.1"
    with Beside(site) as beside:
        connection.sendall(head(asked) * (count - 1) + head(asked, Connection="close"))
        beside.turns(100)
        answers = everything(connection)
    assert beside.grown < MEMORY
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == count
    assert len(answers) > count * 250_000


def large(site: Site) -> str:
    """The address of the largest file that is served."""
    return "/static/" + json.loads((site.var / "static" / "staticfiles.json").read_text())["paths"][JQUERY]


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = bytearray()
    while piece := connection.recv(MiB):
        found += piece
    return bytes(found)


TRICKLES = {
    "head": b"GET / HTTP/1.1\r\na: " + b"b" * 100,
    "body": head("POST / HTTP/1.1", Transfer_Encoding="chunked") + b"1\r\na\r\n" * 20,
}


@pytest.mark.parametrize("sent", TRICKLES.values(), ids=TRICKLES)
def test_a_request_that_trickles_in_is_given_up(impatient: Site, connect: Connect, sent: bytes) -> None:
    connection, began = connect(impatient), time.monotonic()
    for at in range(len(sent)):
        connection.sendall(sent[at : at + 1])
        if select.select([connection], [], [], 0.1)[0]:
            break
    assert 1 < time.monotonic() - began < 8
    assert answer(connection)[0] == 408


def test_answers_that_nobody_reads_are_given_up(impatient: Site, connect: Connect) -> None:
    connection = connect(impatient)
    connection.sendall(head(f"GET {large(impatient)} HTTP/1.1") * 100)
    poll = select.poll()
    poll.register(connection, 0)  # a reset is reported without being asked for
    assert poll.poll(20_000)


def test_the_last_answer_of_a_connection_has_a_minute_to_be_read() -> None:
    clock, transport = Clock(), StringTransport()
    channel = requests.Channel()
    channel.callLater = clock.callLater
    channel.makeConnection(transport)
    channel.setTimeout(None)  # as it is while a request is answered
    channel.loseConnection()
    clock.advance(requests.UNREAD_SECONDS - 1)
    assert not transport.disconnected
    clock.advance(2)
    assert transport.disconnected


async def test_frames_before_there_is_a_socket_are_not_kept() -> None:
    """A client cannot know yet that it may send, so it is none that anybody would miss."""
    transport, pending = StringTransport(), SimpleNamespace(root_path="", proxy_forwarded_address_header=None)
    pending.protocol_connected = pending.protocol_disconnected = pending.log_action = lambda *_: None
    pending.create_application = lambda *_: asyncio.Queue()  # it never accepts
    factory = WebSocketFactory(pending)
    factory.protocol = ChatSocket
    socket = factory.buildProtocol(None)
    socket._raw_query_string = b""
    transport.registerProducer(requests.Channel(), True)  # that the connection began with
    socket.makeConnection(transport)
    socket.dataReceived(opening("http://localhost", ""))
    assert not transport.disconnected
    socket.dataReceived(masked(TEXT, b"a"))
    assert transport.disconnected
    socket.connectionLost(Failure(ConnectionAborted()))


def test_a_frame_in_the_smallest_pieces_costs_what_it_holds() -> None:
    socket, count = ChatSocket(), 100_000
    socket.websocket_version, socket.failedByMe = 13, False
    socket.maxMessagePayloadSize = socket.maxFramePayloadSize = MiB
    socket.onMessageBegin(False)
    socket.onMessageFrameBegin(2 * count)
    tracemalloc.start()
    for number in range(count):
        socket.onMessageFrameData((number % 2**16).to_bytes(2, "big"))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < MiB
