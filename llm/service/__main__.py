"""`python -m llm.service`: the service that a client starts."""

from __future__ import annotations

from llm.service.server import main

if __name__ == "__main__":
    main()
