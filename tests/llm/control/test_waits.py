"""The forecast of waits, against cases that can be worked out by hand."""

from __future__ import annotations

import pytest

from llm.control.waits import ServiceTime, expected_waits


def test_waits_follow_the_places_as_they_become_free() -> None:
    assert expected_waits([8.0, 2.0], 10.0, 4) == [2.0, 8.0, 12.0, 18.0]


def test_answer_that_outlasts_the_mean_is_expected_to_end_soon() -> None:
    assert expected_waits([60.0], 10.0, 2) == [1.0, 11.0]


def test_mean_follows_what_is_measured() -> None:
    service_time = ServiceTime()
    assert service_time.mean is None
    for seconds in (1.0, 3.0):
        service_time.record(seconds)
    assert service_time.mean == 2.0
    for _ in range(100):
        service_time.record(10.0)
    assert service_time.mean == pytest.approx(10.0, abs=0.01)
