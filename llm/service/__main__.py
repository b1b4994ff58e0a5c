"""Runs the service that a client starts (`python -m llm.service`)."""

from __future__ import annotations

from llm.service.server import main

if __name__ == "__main__":
    main()
