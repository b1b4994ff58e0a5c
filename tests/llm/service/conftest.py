"""Clients whose service ends with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from llm.conf import Settings
from llm.service.client import ServiceClient
from tests.llm.service.clients import NewClient, end_service


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[NewClient]:
    """Makes clients of a service of this test's own; both end with the test."""
    made: list[ServiceClient] = []
    settings: list[Settings] = []

    def make(**values: object) -> ServiceClient:
        values = {"backend": "synthetic", "synthetic_rate": 200.0, "var": str(tmp_path), **values}
        settings.append(Settings(**values))  # type: ignore[arg-type]
        made.append(ServiceClient(settings[-1]))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()
    for one in settings:
        if not one.service:
            await end_service(one)
