"""A network between a browser and a site that goes silent: what is connected stays so, and nothing comes through."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Relay:
    """Carries bytes between those who connect to it and a site. `url` is the site's, seen through it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._site = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._silent = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def hush(self) -> None:
        """Carry nothing more on the connections that there are, as after a sleep; later ones work."""
        self._silent.set()
        self._silent = threading.Event()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):  # it has ended by itself
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._site)
                self._sockets += [near, far]
                self.connections += 1
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=_carry, args=(source, sink, self._silent), daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
    with contextlib.suppress(OSError):  # closed
        while data := source.recv(65536):
            if silent.is_set():
                return
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def relayed(url: str) -> Iterator[Relay]:
    relay = Relay(url)
    yield relay
    relay.close()
