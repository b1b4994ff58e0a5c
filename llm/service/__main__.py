"""`python -m llm.service`: the service that a client starts, with its settings as JSON on standard input.

Prints one line (`listening`, or why it cannot) and serves until 5 s after its last client left. Exit code 78
(os.EX_CONFIG) says that starting it again would not help. Knows nothing of Django.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec

from llm.conf import Settings
from llm.errors import ConfigurationError
from llm.service.address import service_address
from llm.service.server import run


def _tell_starter(line: str) -> None:
    """The one line `llm.service.launch` reads; nobody reads further, so what follows goes to the log."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def main() -> None:
    logging.raiseExceptions = False  # the terminal of whoever started us may be gone
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = msgspec.json.decode(sys.stdin.buffer.read(), type=Settings)
        run(settings, service_address(settings), lambda: _tell_starter("listening"), stays=False)
    except (msgspec.DecodeError, ConfigurationError) as error:
        _tell_starter(str(error))
        sys.exit(os.EX_CONFIG)


if __name__ == "__main__":
    main()
