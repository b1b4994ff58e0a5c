"""The llm service as a real process on the synthetic backend, and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from llm.backends.synthetic import synthetic_text
from llm.conf import Settings
from llm.errors import Overloaded, Unavailable
from llm.events import Delta, Event, Finished, Queued, Started
from llm.request import ChatMessage, GenerationRequest
from llm.sampling import DEFAULTS
from llm.service import wire
from llm.service.address import LONGEST
from llm.service.launch import connect
from tests.llm.scripted import request
from tests.llm.service.clients import NewClient, answer, becomes, end_service, hello, path_of, started, text_of
from tests.server import ROOT


async def test_answer_arrives_whole_through_the_socket(client: NewClient) -> None:
    one = client(synthetic_tokens=40)
    await becomes(one, "ready")
    events = await answer(one)
    assert "".join(event.text for event in events if isinstance(event, Delta)) == synthetic_text(40)
    assert isinstance(events[0], Started)
    assert isinstance(events[-1], Finished)
    assert events[-1].usage.completion_tokens == 40
    stats = await one.stats()
    assert (stats.processing, stats.accepted, stats.finished) == (0, 1, {"stop": 1})


async def test_a_conversation_of_any_length_is_sent_in_part(client: NewClient) -> None:
    """One that is larger than a frame may be harms nobody, and its oldest turns are said to be left out."""
    one = client(synthetic_tokens=40)
    await becomes(one, "ready")
    old = [ChatMessage(role, "abcdefghijklmno " * 1000) for role in ("user", "assistant")] * 3000
    assert sum(len(message.content) for message in old) > wire.MAX_FRAME
    asked = GenerationRequest(messages=(*old, ChatMessage("user", "/echo all of it")))

    async def long() -> Finished:
        async with (await one.admit("eve")).run(asked) as events:
            return [event async for event in events][-1]

    end, events = await asyncio.gather(long(), answer(one))
    assert (end.reason, end.usage.completion_tokens) == ("stop", 3)
    assert 2900 < end.usage.left_out_turns < 3000
    assert end.usage.prompt_tokens > 3
    assert isinstance(events[-1], Finished)
    assert (events[-1].reason, events[-1].usage.left_out_turns) == ("stop", 0)
    assert (await one.stats()).left_out_turns == end.usage.left_out_turns


async def test_every_client_knows_what_holds_where_a_request_says_nothing(client: NewClient) -> None:
    first, second = client(max_new_tokens=77), client(max_new_tokens=77)
    for one in (first, second):  # one of them while it loads, the other with the greeting
        await becomes(one, "ready")
        assert one.defaults == msgspec.structs.replace(DEFAULTS, max_new_tokens=77)


async def test_limits_hold_over_all_clients(client: NewClient) -> None:
    limits = {"num_of_concurrent_executions": 1, "max_queue_size": 1}
    one, two = client(**limits), client(**limits)
    await becomes(one, "ready")
    await becomes(two, "ready")
    first, second = await one.admit("ada"), await two.admit("bob")
    with pytest.raises(Overloaded) as refused:
        await one.admit("eve")
    assert refused.value.queue_size == 1
    first.cancel()
    second.cancel()


async def test_cancel_and_leaving_free_the_place(client: NewClient) -> None:
    one = client(num_of_concurrent_executions=1, max_queue_size=1, synthetic_tokens=100_000, max_new_tokens=100_000)
    await becomes(one, "ready")
    async with (await one.admit("ada")).run(request()) as events:
        await anext(events)
    ticket = await one.admit("ada")
    stream = ticket.run(request())
    while not isinstance(await anext(stream), Started):
        pass
    ticket.cancel()
    assert [event async for event in stream][-1].reason == "cancelled"


async def test_client_that_dies_gives_its_places_back(client: NewClient) -> None:
    limits = {"num_of_concurrent_executions": 1, "max_queue_size": 1, "synthetic_tokens": 500, "synthetic_rate": 20.0}
    one, two = client(**limits), client(**limits)
    await becomes(one, "ready")
    await becomes(two, "ready")
    held = (await one.admit("ada")).run(request())
    assert isinstance(await anext(held), Started)
    waiting = (await two.admit("bob")).run(request())
    await one.aclose()
    kinds = [type(await anext(waiting)).__name__ for _ in range(2)]
    assert kinds == ["Queued", "Started"]
    events = [event async for event in held]
    assert (events[-1].reason, events[-1].code) == ("error", "unavailable")
    assert (await two.stats()).finished == {"interrupted": 1}  # nobody cancelled it


async def test_death_ends_what_has_streamed_and_the_service_comes_back(
    client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    one = client(synthetic_tokens=500, synthetic_rate=20.0)
    await becomes(one, "ready")
    pid = (await hello(one._settings)).pid
    stream = await started(one)
    assert isinstance(await anext(stream), Delta)
    os.kill(pid, signal.SIGKILL)
    events = [event async for event in stream]
    assert (events[-1].reason, events[-1].code) == ("error", "unavailable")
    await becomes(one, "down")
    await becomes(one, "ready")
    assert (await hello(one._settings)).pid != pid
    assert "the llm service is gone (killed by SIGKILL)" in caplog.text


@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGSTOP])
async def test_what_has_streamed_nothing_runs_again_whole_and_in_its_order(
    client: NewClient, with_signal: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    one = client(
        synthetic_tokens=5,
        synthetic_rate=2.0,
        num_of_concurrent_executions=1,
        per_visitor_queued=5,
        stall_seconds=1.0,
    )
    await becomes(one, "ready")
    streams = [await started(one, "/echo one"), *[(await one.admit("ada")).run(request("/echo two")) for _ in range(2)]]
    os.kill((await hello(one._settings)).pid, with_signal)
    ended: list[int] = []

    async def read(number: int) -> list[Event]:
        events = [event async for event in streams[number]]
        ended.append(number)
        return events

    answers = await asyncio.gather(*map(read, range(3)))
    assert [text_of(events) for events in answers] == ["one", "two", "two"]
    assert all(events[-1].reason == "stop" for events in answers)
    assert ended == [0, 1, 2]
    assert ("has said nothing for" in caplog.text) == (with_signal == signal.SIGSTOP)


async def test_step_that_hangs_ends_the_process_and_the_request_runs_again(
    client: NewClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hang = tmp_path / "hang"
    monkeypatch.setenv("HANG", str(hang))
    model = "python:tests.llm.models.hanging_chat"
    one = client(backend="local", model=model, quantization="none", stall_seconds=2.0, max_new_tokens=64)
    await becomes(one, "ready")
    hang.touch()
    stream = await started(one)
    await becomes(one, "down")
    hang.unlink()
    events = [event async for event in stream]
    assert events[-1].reason in ("stop", "length")
    assert text_of(events)


async def test_second_death_ends_what_may_be_the_cause(client: NewClient) -> None:
    one = client(synthetic_tokens=5, synthetic_rate=1.0)
    await becomes(one, "ready")
    stream = await started(one)
    for _ in range(2):
        os.kill((await hello(one._settings)).pid, signal.SIGKILL)
        await becomes(one, "down")
        await becomes(one, "ready")
    events = [event async for event in stream]
    assert (events[-1].reason, events[-1].code) == ("error", "unavailable")


async def test_cancel_between_death_and_return_ends_at_once(client: NewClient) -> None:
    one = client(synthetic_tokens=5, synthetic_rate=1.0)
    await becomes(one, "ready")
    ticket = await one.admit("ada")
    stream = ticket.run(request())
    assert isinstance(await anext(stream), Started)
    os.kill((await hello(one._settings)).pid, signal.SIGKILL)
    await becomes(one, "down")
    ticket.cancel()
    assert [event async for event in stream][-1].reason == "cancelled"
    await becomes(one, "ready")
    assert (await one.stats()).accepted == 0


async def test_processes_that_start_at_once_share_one_service(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from llm.service.client import ServiceClient\n"
        "from llm.conf import Settings\n"
        "async def main():\n"
        "    client = ServiceClient(Settings(backend='synthetic', var=sys.argv[1]))\n"
        "    (await client.admit('ada')).cancel()\n"
        "    print('in', flush=True)\n"
        "    await asyncio.to_thread(sys.stdin.read)\n"
        "    await client.aclose()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    programs = [
        subprocess.Popen(  # noqa: ASYNC220 they start at once, which is the point
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    settings = Settings(backend="synthetic", var=str(tmp_path))
    try:
        for program_ in programs:
            assert program_.stdout is not None
            assert await asyncio.to_thread(program_.stdout.readline) == "in\n"
        assert (await hello(settings)).others == 3
    finally:
        for program_ in programs:
            program_.communicate()
        await end_service(settings)


async def test_service_with_other_settings_is_replaced_when_nobody_uses_it(client: NewClient) -> None:
    one, two = client(max_queue_size=1), client(max_queue_size=2)
    await becomes(one, "ready")
    status = await becomes(two, "failed")
    assert status.message is not None
    assert "other settings" in status.message
    with pytest.raises(Unavailable):
        await two.admit("ada")
    await one.aclose()
    three = client(max_queue_size=2)
    await becomes(three, "ready")
    assert (await three.stats()).max_waiting == 2


async def test_service_ends_after_its_last_client_left(client: NewClient) -> None:
    one = client()
    await becomes(one, "ready")
    process = psutil.Process((await hello(one._settings)).pid)
    await one.aclose()
    await asyncio.to_thread(process.wait, 15)
    assert not path_of(one._settings).exists()


async def test_settings_that_cannot_work_are_told_and_not_tried_again(client: NewClient, tmp_path: Path) -> None:
    one = client(backend="local", model=str(tmp_path / "nothing.gguf"))
    status = await becomes(one, "failed")
    assert status.message is not None
    assert "nothing.gguf" in status.message
    assert "\n" not in status.message
    assert one._keeper is not None
    await one._keeper


async def test_a_model_too_large_for_the_memory_is_told_and_not_tried_again(client: NewClient) -> None:
    one = client(backend="local", model="python:tests.llm.models.too_large")
    status = await becomes(one, "failed")
    assert status.message is not None
    assert status.message.startswith("LLM_MODEL=python:tests.llm.models.too_large: there is not enough memory")
    assert "\n" not in status.message
    assert one._keeper is not None
    await one._keeper


async def test_long_var_path_gets_a_short_socket(client: NewClient, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    one = client(var=str(deep))
    assert len(os.fsencode(path_of(one._settings))) <= LONGEST
    await becomes(one, "ready")


async def test_what_is_no_frame_harms_nobody_else(client: NewClient) -> None:
    one = client()
    await becomes(one, "ready")
    streams = await connect(one._settings)
    assert streams is not None
    reader, writer = streams
    writer.write(b"\x00\x00\x00\x05garbage")
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    assert (await answer(one, "/echo fine"))[-1].reason == "stop"


async def test_socket_is_for_its_owner_only(client: NewClient) -> None:
    one = client()
    await becomes(one, "ready")
    assert path_of(one._settings).stat().st_mode & 0o077 == 0


async def test_service_that_stays_serves_over_tcp_to_those_who_know_the_token(
    client: NewClient, tmp_path: Path
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
    environment = {
        **os.environ,
        "CHATSTREAM_VAR": str(tmp_path),
        "LLM_BACKEND": "synthetic",
        "LLM_SERVICE_TOKEN": "secret",
        "LLM_MAX_QUEUE_SIZE": "3",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "manage.py", "llm_service", "--listen", address, cwd=ROOT, env=environment, stdout=-1
    )
    assert process.stdout is not None
    assert address in (await process.stdout.readline()).decode()
    try:
        one = client(service=address, service_token="secret")
        await becomes(one, "ready")
        assert text_of(await answer(one, "/echo over tcp")) == "over tcp"
        assert (await one.stats()).max_waiting == 3  # its settings count, not the client's
        stranger = client(service=address, service_token="guess")
        await becomes(stranger, "down")
        process.terminate()
        assert await process.wait() == 0
        await becomes(one, "down")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("service", ["localhost", "tcp://host", "tcp://host:port", "http://host:1", "unix:relative"])
async def test_address_that_is_none_is_one_line(client: NewClient, service: str) -> None:
    status = await becomes(client(service=service), "failed")
    assert status.message is not None
    assert status.message.startswith(f"LLM_SERVICE={service}: ")


async def test_tcp_without_a_token_is_refused(client: NewClient) -> None:
    status = await becomes(client(service="tcp://127.0.0.1:9"), "failed")
    assert status.message is not None
    assert "LLM_SERVICE_TOKEN" in status.message


async def test_expected_wait_is_within_a_factor_of_two_of_the_truth(client: NewClient) -> None:
    one = client(synthetic_tokens=60, synthetic_rate=30.0, num_of_concurrent_executions=2, per_visitor_queued=20)
    await becomes(one, "ready")
    await answer(one)  # so that there is a service time to go by
    loop = asyncio.get_running_loop()

    async def told_and_true(number: int) -> tuple[float | None, float]:
        asked = loop.time()
        eta: float | None = None
        async with (await one.admit(f"visitor {number}")).run(request()) as events:
            async for event in events:
                if isinstance(event, Queued) and eta is None:
                    eta = event.eta
                if isinstance(event, Started):
                    return eta, loop.time() - asked
        raise AssertionError("it never started")

    async def held() -> None:
        await answer(one)

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(held())
        await asyncio.sleep(0)
        waits = [group.create_task(told_and_true(number)) for number in range(1, 3)]
    for wait in waits:
        eta, truth = wait.result()
        assert eta is not None
        assert truth / 2 < eta < truth * 2
