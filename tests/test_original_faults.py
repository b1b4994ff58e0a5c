"""The faults of the original ChatStream in load control and on the wire, each with the tests that would show it here.

Those that no other test names are at the end of this module.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import logging

import pytest

from llm.backends.synthetic import SyntheticBackend, synthetic_text
from llm.conf import Settings
from llm.control.controller import GenerationController
from llm.errors import Overloaded
from llm.events import Delta, Finished
from llm.request import ChatMessage, GenerationRequest
from tests.server import ROOT

FAULTS: dict[str, tuple[str, ...]] = {
    # A place was lost when a stream broke off while it was written to.
    "A1": (
        "llm/control/test_controller.py::test_cancel_running_keeps_the_place_until_the_backend_has_left",
        "llm/engine/test_thread.py::test_cancel_takes_one_step",
        "llm/service/test_service.py::test_client_that_dies_gives_its_places_back",
        "site/test_faults.py::test_connections_reset_while_they_are_written_to",
        "load/test_crowd.py::test_crowd_is_answered_whole_and_leaves_nothing_behind",
    ),
    # Half a request body held up everybody.
    "A2": (
        "site/test_faults.py::test_half_sent_requests_hold_up_nobody",
        "site/test_faults.py::test_messages_that_break_off_are_none",
        "site/test_drain.py::test_a_half_sent_request_holds_up_neither_the_others_nor_the_end",
    ),
    # A queue of 0 or 1 was one without end.
    "A3": ("llm/control/test_controller.py::test_admit_burst_accepts_exactly_running_plus_queued",),
    # Who left while waiting cost a place, or ended the scheduler.
    "A5": (
        "llm/control/test_controller.py::test_cancel_queued_frees_its_place_at_once_and_touches_nobody",
        "llm/control/test_controller.py::test_cancel_before_run_gives_the_place_back",
        "chat/turns/test_turns.py::test_who_asks_may_go_away_while_the_message_is_being_accepted",
        "llm/service/test_service.py::test_death_ends_what_has_streamed_and_the_service_comes_back",
    ),
    # A reader that stopped reading, and one that was gone, kept their places.
    "A6": (
        "site/test_readers.py::test_a_dead_reader_is_dropped",
        "site/test_readers.py::test_the_turn_of_a_dead_reader_completes",
        "chat/turns/test_turns.py::test_a_waiting_turn_that_nobody_watches_gives_up_its_place",
        "llm/control/test_controller.py::test_answer_that_takes_too_long_is_cut_and_keeps_its_place_until_it_has_left",
    ),
    # The model ran on the event loop.
    "A7": (
        "site/test_faults.py::test_the_llm_service_dies_or_stands_still",
        "llm/engine/test_thread.py::test_one_call_of_the_loop_for_each_step",
        "chat/api/test_api.py::test_healthz_answers_whatever_the_model_does",
    ),
    # A burst was refused while there was room.
    "A8": ("llm/control/test_controller.py::test_admit_burst_accepts_exactly_running_plus_queued",),
    # Each token slept for ten milliseconds.
    "A9": ("test_original_faults.py::test_no_token_waits_for_a_fixed_time",),
    # Who waited had no position, no timeout, no way out, and might wait ten times at once.
    "A10": (
        "llm/control/test_controller.py::test_waiting_hears_its_place_and_every_change",
        "llm/control/test_controller.py::test_waiting_too_long_ends_with_its_own_code",
        "llm/control/test_controller.py::test_cancel_queued_frees_its_place_at_once_and_touches_nobody",
        "llm/control/test_controller.py::test_visitor_holds_no_more_than_one_may",
    ),
    # The reported maximum was not the true one.
    "A11": ("test_original_faults.py::test_what_stats_call_the_most_is_the_most",),
    # A signal ended everything on the spot; several processes each had their own limits and sessions.
    "A12": (
        "site/test_drain.py::test_an_answer_under_way_is_finished_and_idle_sockets_are_closed_before",
        "site/test_faults.py::test_the_site_is_told_to_end_as_messages_come_in",
        "llm/service/test_service.py::test_limits_hold_over_all_clients",
        "site/test_processes.py::test_messages_a_minute_count_for_the_whole_site",
    ),
    # Prompts were cut by a formula that cut too much or nothing, the system prompt first.
    "C5": (
        "llm/prompts/test_rendering.py::test_the_oldest_turns_are_dropped_whole",
        "llm/prompts/test_rendering.py::test_what_cannot_fit_is_refused_with_the_numbers",
        "llm/backends/test_local.py::test_settings_that_cannot_work",
    ),
    # Two requests of one conversation wrote into each other.
    "C7": (
        "chat/test_consumer.py::test_two_questions_at_once_in_one_conversation_are_one_answer_and_one_refusal",
        "chat/history/test_history.py::test_accept_refuses_a_second_live_answer",
        "chat/test_retention.py::test_an_answer_in_a_deleted_conversation_ends_with_it",
    ),
    # Two instances in one process shared their state and doubled the lines of the log.
    "C11": ("test_original_faults.py::test_two_controllers_share_nothing",),
    # Whatever was wrong with a request, the answer was the same 500.
    "C12": (
        "chat/test_consumer.py::test_bad_frames_are_answered_and_the_socket_stays",
        "chat/test_consumer.py::test_what_cannot_be_done_is_answered_with_its_code",
        "llm/control/test_controller.py::test_parameter_out_of_range_ends_with_its_name",
    ),
    # Every chunk repeated the whole answer.
    "W1": ("chat/streams/test_transcript.py::test_what_is_sent_grows_with_the_answer_and_no_faster",),
    # An answer with the end mark in it broke the stream.
    "W2": ("chat/test_consumer.py::test_no_text_of_an_answer_breaks_the_frames",),
    # The end did not say whether it was one.
    "W3": (
        "chat/turns/test_turns.py::test_every_reason_is_one_end_and_one_final_row",
        "chat/streams/test_transcript.py::test_a_stored_answer_reads_like_one_that_ended",
    ),
    # Sessions grew without bound, and ended while they were in use.
    "M1": (
        "chat/visitors/test_identity.py::test_a_page_without_a_cookie_makes_no_session_and_says_so",
        "chat/test_retention.py::test_sessions_of_those_who_do_not_keep_theirs_are_bounded",
        "chat/visitors/test_identity.py::test_a_session_lives_on_from_each_day_of_a_visit",
        "load/test_crowd.py::test_crowd_after_crowd_leaves_memory_where_it_was",
    ),
    # Neither the prompt nor the memory of the running was bounded.
    "M2": (
        "llm/control/test_controller.py::test_next_waits_for_memory_and_nobody_overtakes",
        "llm/backends/test_local.py::test_memory_for_less_than_the_context_bounds_the_prompt",
        "llm/engine/test_kvcache.py::test_memory_counts_and_comes_back",
    ),
}


@functools.cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_tests(fault: str) -> None:
    for named in FAULTS[fault]:
        path, _, name = named.partition("::")
        assert name in functions_of(path)


async def controller(running: int, queued: int, rate: float = 100.0, tokens: int = 20) -> GenerationController:
    settings = Settings(
        num_of_concurrent_executions=running,
        max_queue_size=queued,
        per_visitor_running=running,
        per_visitor_queued=queued or 1,
    )
    made = GenerationController(SyntheticBackend(tokens=tokens, rate=rate, max_new_tokens=tokens), settings)
    await made.load()
    return made


QUESTION = GenerationRequest(messages=(ChatMessage("user", "Count"),))


async def answer(made: GenerationController) -> tuple[str, Finished]:
    text: list[str] = []
    async with (await made.admit("ada")).run(QUESTION) as events:
        end = await events.into(lambda event: text.append(event.text) if isinstance(event, Delta) else None)
    return "".join(text), end


async def test_no_token_waits_for_a_fixed_time() -> None:
    """The original could not go beyond 100 tokens a second."""
    made = await controller(1, 0, rate=5_000, tokens=500)
    text, end = await answer(made)
    assert text == synthetic_text(500)
    assert end.timings.tokens_per_second is not None
    assert end.timings.tokens_per_second > 200
    await made.aclose()


@pytest.mark.parametrize(("running", "queued"), [(2, 5), (1, 0), (3, 1)])
async def test_what_stats_call_the_most_is_the_most(running: int, queued: int) -> None:
    made = await controller(running, queued)
    tickets = [await made.admit(f"visitor {number}") for number in range(running + queued)]
    with pytest.raises(Overloaded):
        await made.admit("one more")
    stats = await made.stats()
    assert (stats.max_processing, stats.max_waiting) == (running, queued)
    assert stats.processing + stats.waiting == running + queued
    for ticket in tickets:
        ticket.cancel()
    await made.aclose()


async def test_two_controllers_share_nothing(caplog: pytest.LogCaptureFixture) -> None:
    handlers = list(logging.getLogger().handlers)
    one, two = await controller(1, 0), await controller(2, 0)
    assert logging.getLogger().handlers == handlers
    held = await one.admit("ada")
    with pytest.raises(Overloaded):
        await one.admit("ben")
    told = await asyncio.gather(answer(two), answer(two))
    assert [text for text, _ in told] == [synthetic_text(20)] * 2
    stats = [await each.stats() for each in (one, two)]
    assert [(each.processing, each.max_processing, each.accepted, each.refused) for each in stats] == [
        (1, 1, 1, 1),
        (0, 2, 2, 0),
    ]
    held.cancel()
    await asyncio.gather(one.aclose(), two.aclose())
