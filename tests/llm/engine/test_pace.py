"""The tokens of prompts that a step takes follow from the measured time of steps."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.engine import verify
from llm.engine.pace import FEWEST, LONGEST, REACH, SHARE, Pace
from llm.engine.step import Engine
from llm.engine.warmup import paced
from tests.llm.models import tiny

MEASURED = [(1, 0.010), (8, 0.012), (32, 0.030), (128, 0.102)]


def seconds(size: int) -> float:
    """What `MEASURED` says of a step of so many tokens."""
    pairs = list(itertools.pairwise(MEASURED))
    (left, low), (right, high) = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    return low + (size - left) * (high - low) / (right - left)


@pytest.mark.parametrize("decoding", [1, 5, 16, 40])
def test_one_long_prompt_leaves_streams_more_than_half_their_speed(decoding: int) -> None:
    pace = Pace(MEASURED)
    tokens = pace.prompt_tokens(decoding, 1)
    assert seconds(decoding + tokens) <= (1 + SHARE) * seconds(decoding) * 1.001
    assert seconds(decoding + tokens + 1) > (1 + SHARE) * seconds(decoding)


def test_many_that_wait_may_take_more_but_no_step_is_long() -> None:
    pace = Pace(MEASURED)
    taken = [pace.prompt_tokens(4, waiting) for waiting in (1, 2, 4, 30, 100)]
    assert taken == sorted(taken)
    assert seconds(4 + taken[-1]) <= LONGEST < seconds(4 + taken[-1] + 1)
    assert abs(seconds(pace.prompt_tokens(0, 1)) - LONGEST) < 0.001


def test_the_pace_follows_what_steps_really_take() -> None:
    """Twice as slow with prompts, as beside other load: half as many tokens."""
    pace = Pace(MEASURED)
    before = pace.prompt_tokens(0, 1)
    for _ in range(50):
        pace.saw(0, before, 2 * seconds(before))
    assert seconds(pace.prompt_tokens(0, 1)) == pytest.approx(LONGEST / 2, rel=0.02)
    for _ in range(50):  # and streams that are slow by themselves set a slower measure
        pace.saw(4, 0, 5 * seconds(4))
        pace.saw(4, 30, 5 * seconds(34))
    assert pace.prompt_tokens(4, 1) == pytest.approx(Pace(MEASURED).prompt_tokens(4, 1), abs=1)


def test_prompts_are_not_starved_while_contexts_grow() -> None:
    """Streams became four times as slow while prompts arrived all the time: they set the measure as they are now."""
    pace, taken = Pace(MEASURED), []
    for _ in range(100):
        taken.append(pace.prompt_tokens(20, 1))
        pace.saw(20, taken[-1], 4 * seconds(20) + seconds(20 + taken[-1]) - seconds(20))
    last = [tokens for tokens in taken[-20:] if tokens]
    assert 0 < len(last) < 20
    assert all(0.4 < (seconds(20 + tokens) - seconds(20)) / (4 * seconds(20)) <= SHARE * 1.1 for tokens in last)


def test_a_machine_that_is_too_slow_for_any_prompt_still_takes_some() -> None:
    assert Pace([(1, 1.0), (8, 9.0)]).prompt_tokens(0, 1) == FEWEST
    assert Pace([(1, 1.0)]).prompt_tokens(3, 1) == FEWEST


COSTS = st.floats(1e-4, 5.0)
TABLES = st.tuples(COSTS, st.dictionaries(st.integers(2, 500), COSTS, max_size=5))
SEEN = st.lists(st.tuples(st.integers(0, 64), st.integers(0, 500), st.floats(1e-5, 60.0)), max_size=30)


@given(TABLES, SEEN, st.integers(0, 64), st.integers(1, 64))
def test_whatever_was_measured_a_step_takes_some_and_not_without_end(
    table: tuple[float, dict[int, float]], seen: list[tuple[int, int, float]], decoding: int, waiting: int
) -> None:
    """Also where a step costs the same whatever is in it, and beside others on a machine; more where more wait."""
    measured = {1: table[0], **table[1]}
    pace = Pace(sorted(measured.items()))
    for rows, tokens, took in seen:
        if rows + tokens:
            pace.saw(rows, tokens, took)
    tokens = pace.prompt_tokens(decoding, waiting)
    if tokens == 0:
        pace.saw(decoding, 0, 1.0)
        tokens = pace.prompt_tokens(decoding, waiting)
    assert FEWEST <= tokens <= max(FEWEST, REACH * max(measured))
    assert tokens <= pace.prompt_tokens(decoding, waiting + 1)


def test_measured_at_load() -> None:
    forward = verify.packed(tiny())
    engine = paced(Engine(forward), forward, 100)
    assert engine.pace._sizes == [1, 8, 32, 96]  # no step is longer than a sequence may be
    assert engine.pace._seconds == sorted(engine.pace._seconds)
    assert engine.allocated_bytes == 0


def test_what_is_slow_is_not_measured_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.engine.warmup._step", lambda _, size: size / 100)
    forward = verify.packed(tiny())
    assert paced(Engine(forward), forward, 1000).pace._sizes == [1, 8, 32]
