"""Bounds daphne's end of a connection over HTTP: what may be sent, how long that may take, what is kept of it.

Twisted, below daphne, takes any body, parses forms on the event loop's thread, and buffers answers that nobody reads.
All that a request costs before the site knows whose it is has a bound here. Knows HTTP, and nothing of Django.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from daphne.http_protocol import WebRequest
from twisted.protocols.basic import LineReceiver
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers

from chatsite.server.refusals import refusal

READ = 4 * 1024
"""Bytes taken from a connection at a time: what they can make us compute is what the others wait for."""

DROP = 64 * 1024
"""Bytes taken at a time of what is dropped."""

HEAD = 16 * 1024
"""Bytes of a request line and its headers."""

LINES = 100
"""Lines of these; a browser sends some twenty."""

PIECES = 1_000
"""Pieces in which a body may come: to take a chunk of one byte costs as much as one of thousands."""

CONTENT_TYPE = 200
"""Characters of a Content-Type, which Django parses in time that grows with their square."""

REQUEST_SECONDS = 60.0
"""How long a request may take from its first byte to its last, and a connection wait for its next."""

LINGER_SECONDS = 10.0
"""How long what follows a refused request is read and dropped: closed at once, the answer could be lost."""

UNREAD_SECONDS = 60.0
"""How long the last answer of a connection may take to be read."""

DROPPED = (b"Daphne-Root-Path", b"Sec-WebSocket-Protocol")
"""Headers that would be believed, or parsed, and that nobody needs: the site has no root path and no subprotocols."""


class TooManyPieces(Exception):
    """Raised when a body comes in more than PIECES."""


class Channel(HTTPChannel):
    """A connection over HTTP, whose requests come one after the other.

    A request has REQUEST_SECONDS from its first byte to its last. Lines of headers have a bound in number and size; a
    body has one in bytes (`Server.max_body`), by its Content-Length at once, else as it comes. What is beyond that is
    refused with a page, and the connection closed. While the client leaves answers unread, nothing more is read of it.
    """

    MAX_LENGTH = totalHeadersSize = HEAD

    _dataBuffer: list[bytes]
    _abortingCall: Any

    def __init__(self) -> None:
        super().__init__()
        self._lines = 0
        self._body = 0
        self._receiving = False
        self._refused = False

    def connectionMade(self) -> None:
        self.requestFactory = Request  # daphne's factory has put its own here
        self.transport.bufferSize, self.timeOut = READ, REQUEST_SECONDS
        super().connectionMade()

    def refuse(self, status: int) -> None:
        """Answer the request that is coming, or has come, with a page; then drop what comes, and close."""
        if self._refused:
            return
        self._refused = self.paused = True
        self._buffer, self._dataBuffer = b"", []
        self.transport.bufferSize = DROP
        method = getattr(self, "_command", b"")
        for request in self.requests:
            request.drop_body()
            method = method or request.method
        self.transport.write(refusal(status, body=method != b"HEAD"))
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        self.transport.loseWriteConnection()
        self.setTimeout(None)
        self._abort_in(LINGER_SECONDS)

    # What arrives

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if not self._receiving:
            self._receiving = True
            self.resetTimeout()
        LineReceiver.dataReceived(self, data)

    def lineReceived(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > LINES or self._receivedHeaderSize + len(line) > HEAD:
            self.refuse(431)
        elif line[:1] in (b" ", b"\t"):  # a header's second line, which nobody sends any more
            self.refuse(400)
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.refuse(431 if self._lines else 414)

    def headerReceived(self, line: bytes) -> bool:
        try:
            return bool(super().headerReceived(line))
        except ValueError:  # a Content-Length with more digits than Python makes a number of
            self.refuse(413)
            return False

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > self._max_body:
            self.refuse(413)
        else:
            super().allHeadersReceived()

    def rawDataReceived(self, data: bytes) -> None:
        if self.length is None and not self._handlingRequest:  # chunks, whose heads count too
            self._body += len(data)
            if self._body > self._max_body:
                self.refuse(413)
                return
        try:
            super().rawDataReceived(data)
        except TooManyPieces:
            self.refuse(400)

    def allContentReceived(self) -> None:
        self._lines = self._body = 0
        self._receiving = False
        super().allContentReceived()

    @property
    def _max_body(self) -> int:
        return int(self.factory.server.max_body)

    # What is read too slowly

    def pauseProducing(self) -> None:
        """Read and answer nothing more: what was answered is not read."""
        super().pauseProducing()
        self.paused = True
        self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self._refused:
            return
        self.paused = False
        if sum(map(len, self._dataBuffer)) <= self._optimisticEagerReadSize:
            self._networkProducer.resumeProducing()
        LineReceiver.dataReceived(self, b"")

    # How it ends

    def timeoutConnection(self) -> None:
        if self._receiving:
            self.refuse(408)
        else:
            super().timeoutConnection()

    def loseConnection(self) -> None:
        super().loseConnection()
        self._abort_in(UNREAD_SECONDS)

    def _abort_in(self, seconds: float) -> None:
        if self._abortingCall is None:
            self._abortingCall = self.callLater(seconds, self.forceAbortClient)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(400)


class Request(WebRequest):
    """A request over HTTP, or for a WebSocket. Its body is kept in memory, once, and nobody parses it here."""

    finished: int

    def __init__(self, *args: Any) -> None:
        super().__init__(*args, parsePOSTFormSubmission=False)
        self._pieces = 0

    def gotLength(self, length: int | None) -> None:
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        self._pieces += 1
        if self._pieces > PIECES:
            raise TooManyPieces
        super().handleContentChunk(data)

    def parseCookies(self) -> None:
        """Leave the cookies to Django."""

    def drop_body(self) -> None:
        """Free the body's memory."""
        if self.content is not None:
            self.content.close()

    def process(self) -> None:
        headers = self.requestHeaders
        for name in DROPPED:
            headers.removeHeader(name)
        _without_quoted_cookies(headers)
        types = headers.getRawHeaders(b"Content-Type", [])
        if len(types) > 1 or any(len(value) > CONTENT_TYPE or b"*" in value for value in types):
            self.channel.refuse(400)
            return
        super().process()
        self.drop_body()  # the application's queue has it

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """Answer that the request cannot be answered, or break off where its answer has begun."""
        if self.finished or self.channel is None:
            return
        if self._response_started:
            self.channel.forceAbortClient()
        else:
            self.finished = 1
            self.channel.refuse(status)


def _without_quoted_cookies(headers: Headers) -> None:
    """Remove cookies that have a backslash: none of ours has, and undoing many of them takes Python seconds."""
    found = headers.getRawHeaders(b"Cookie", [])
    if any(b"\\" in line for line in found):
        kept = [cookie for line in found for cookie in line.split(b";") if b"\\" not in cookie]
        headers.setRawHeaders(b"Cookie", [b";".join(kept)])
