"""The site as a process, for tests that talk to it over the network."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 120
STOP_SECONDS = 15

NOT_OURS = ("LLM_", "CHAT", "DATABASE_URL", "REDIS_URL", "SECRET_KEY")
"""Variables of whoever runs the tests that must not reach a site."""

Serve = Callable[..., "Site"]


class Site:
    """A running site with a `var` of its own, started by `program`. `url` ends without a slash."""

    def __init__(self, var: Path, environment: dict[str, str], program: str = "manage.py") -> None:
        self.var = var
        self.program = program
        self.port = free_port()
        self.log = var / f"{self.port}.log"
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
        own = {"CHATSTREAM_VAR": str(var), "LLM_BACKEND": "synthetic", "CHAT_DRAIN_SECONDS": "1"}
        self._environment = kept | own | environment
        self.process: subprocess.Popen[bytes] | None = None

    def beside(self) -> Site:
        """Another process of the same site."""
        return Site(self.var, self._environment, self.program)

    def prepare(self) -> None:
        """A database and collected static files."""
        for command in (["migrate"], ["collectstatic", "--noinput"]):
            self.manage(*command, "--verbosity", "0")

    def manage(self, *arguments: str) -> str:
        """Run a command of manage.py in the site's environment; what it printed."""
        done = subprocess.run(
            [sys.executable, "manage.py", *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self) -> None:
        """Start it and wait until it answers messages."""
        command = [sys.executable, self.program, "serve", "--host", "127.0.0.1", "--port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            assert self.process.poll() is None, f"The site ended:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"The site does not start:\n{self.log.read_text()}"
            time.sleep(0.05)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310 our own server
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """End it; its exit code."""
        self.tell(with_signal)
        return self.ended()

    def tell(self, signal: int) -> None:
        assert self.process is not None
        self.process.send_signal(signal)

    def ended(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@pytest.fixture(scope="module")
def serve(request: pytest.FixtureRequest) -> Iterator[Serve]:
    """Start sites: `serve(LLM_MAX_QUEUE_SIZE=1)`. Each is stopped at the end of the module.

    `models` is a folder of converted models to use, `program` what to start instead of manage.py; `beside` makes it
    another process of that site.
    """
    sites: list[Site] = []

    def start(
        models: Path | None = None, program: str = "manage.py", beside: Site | None = None, **environment: object
    ) -> Site:
        if beside is not None:
            sites.append(beside.beside())
            sites[-1].start()
            return sites[-1]
        var = Path(tempfile.mkdtemp(prefix="site-"))
        if models is not None:
            models.mkdir(parents=True, exist_ok=True)
            (var / "models").symlink_to(models)
        site = Site(var, {name: str(value) for name, value in environment.items()}, program)
        sites.append(site)
        site.prepare()
        site.start()
        return site

    failed_before = request.session.testsfailed
    yield start
    for site in sites:
        if site.process is not None and site.process.poll() is None:
            site.stop()
        if request.session.testsfailed > failed_before:
            print(f"\n{site.url}:\n{site.log.read_text()}")
        shutil.rmtree(site.var, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
