"""Whatever visitors, time, the service, the database and other processes do in whatever order: each turn ends once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chat.errors import HistoryUnavailable, NotFound, Unreachable
from chat.history.values import INTERRUPTED, Accepted, Asked, Continue, Redo
from chat.turns import turn as turn_module
from llm.events import Delta, Queued, Started
from llm.sampling import SamplingParams
from tests.chat.conftest import question
from tests.chat.doubles import Place
from tests.chat.model import PLACES, VISITORS, Model, Turn
from tests.chat.tabs import Tab

pytestmark = pytest.mark.timeout(400)  # to find the shortest way to a failure takes minutes

PROCESSES = st.sampled_from([0, 1])
STEPS = st.integers(1, 6)
TEXTS = st.sampled_from(["a", "bc", "\0", "d\0e"])
SAYS = st.lists(TEXTS, max_size=3)


class Chat(Model, RuleBasedStateMachine):
    # What visitors do

    def begin(self, number: int, asked: Asked, watched: bool, says: list[str]) -> None:
        """Have it start at once if it `says` something."""
        process = self.processes[number]
        starting = process.turns.start(asked, SamplingParams(), self.loop.time())
        if refusal := self.refusal(process, asked):
            rows = len(self.tables.rows)
            with pytest.raises(refusal):
                self.do(starting)
            assert len(self.tables.rows) - rows == (asked.generation in self.tables.rows)  # stored, and not told so
            return
        accepted = self.do(starting)
        assert accepted.new
        turn = self.turns[accepted.generation] = Turn(asked, accepted, self.service.places[-1])
        if watched:
            transcript = process.turns.hub.transcript(accepted.generation)
            assert transcript is not None
            tab = Tab(process.turns, asked.caller)
            tab.next_seq = 0
            tab.feed.follow(transcript, None if transcript.given else 0)
            turn.tabs.append(tab)
        if says:
            self.run(turn.place, says)

    @rule(number=PROCESSES, visitor=st.sampled_from(VISITORS), watched=st.booleans(), says=SAYS)
    def send(self, number: int, visitor: Any, watched: bool, says: list[str]) -> None:
        self.begin(number, question(visitor), watched, says)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), number=PROCESSES, watched=st.booleans(), says=SAYS)
    def go_on(self, data: st.DataObject, number: int, watched: bool, says: list[str]) -> None:
        """A further question, a further answer, or more of one."""
        turn = self.pick(data)
        caller, answer = turn.asked.caller, turn.accepted.answer
        follow_up = question(caller, conversation=turn.accepted.conversation)
        redo, more = (kind(caller=caller, request_id=uuid4().hex, answer=answer) for kind in (Redo, Continue))
        self.begin(number, data.draw(st.sampled_from([follow_up, redo, more])), watched, says)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), number=PROCESSES)
    def repeat(self, data: st.DataObject, number: int) -> None:
        """A frame that was answered before leads to the same, however full or near its end the site is."""
        turn, places = self.pick(data), len(self.service.places)
        try:
            again = self.do(self.processes[number].turns.start(turn.asked, SamplingParams(), self.loop.time()))
        except HistoryUnavailable:
            assert self.tables.away
        else:
            assert (again.new, again.generation) == (False, turn.accepted.generation)
        assert len(self.service.places) == places

    @rule(visitor=st.sampled_from(VISITORS))
    def send_twice_at_once(self, visitor: Any) -> None:
        """To both processes: one runs at most, and the other's place comes back."""
        frame, free = uuid4().hex, PLACES - len(self.service.held)
        asked = [question(visitor, request_id=frame) for _ in self.processes]

        async def both() -> list[Accepted | BaseException]:
            starting = [
                process.turns.start(each, SamplingParams(), self.loop.time())
                for process, each in zip(self.processes, asked, strict=True)
            ]
            return await asyncio.gather(*starting, return_exceptions=True)

        given = len(self.service.places)
        accepted = [each for each in self.do(both()) if isinstance(each, Accepted)]
        new = [each for each in accepted if each.new]
        assert len({each.generation for each in accepted}) <= 1
        assert len(new) <= 1
        assert PLACES - len(self.service.held) == free - len(new)
        for each in new:
            place = next(place for place in self.service.places[given:] if not place.ended)
            self.turns[each.generation] = Turn(question(visitor, request_id=frame), each, place)

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), number=PROCESSES, has=st.none() | st.integers(0, 3))
    def watch(self, data: st.DataObject, number: int, has: int | None) -> None:
        """With nothing, or with the first deltas of it."""
        turn, process = self.pick(data), self.processes[number]
        tab = Tab(process.turns, turn.asked.caller)
        source = self.transcript(self.row(turn))
        if has is not None:
            deltas = [] if source is None else source.deltas[:has]
            has, tab.text = len(deltas), "".join(deltas)
        try:
            self.do(asyncio.wait_for(tab.open(turn.accepted, has), 5))
        except HistoryUnavailable:
            assert self.tables.away
            tab.leave()
            return
        turn.tabs.append(tab)
        self.pass_time(1e-6)

    @precondition(lambda self: any(turn.tabs for turn in self.turns.values()))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        turn = data.draw(st.sampled_from([turn for turn in self.turns.values() if turn.tabs]))
        self.close(turn, data.draw(st.sampled_from(turn.tabs)))

    @precondition(lambda self: self.turns)
    @rule(data=st.data(), number=PROCESSES)
    def stop(self, data: st.DataObject, number: int) -> None:
        """From any tab, at any process; a stranger finds nothing there."""
        turn, turns = self.pick(data), self.processes[number].turns
        stranger = next(visitor for visitor in VISITORS if visitor is not turn.asked.caller)
        with pytest.raises((NotFound, HistoryUnavailable)):
            self.do(turns.stop(stranger, turn.accepted.generation))
        try:
            self.do(turns.stop(turn.asked.caller, turn.accepted.generation))
        except HistoryUnavailable:
            assert self.tables.away
        except Unreachable:
            assert not self.mended
        else:
            if self.mended:
                assert turn.place.ended or turn.place.leaving

    # What the service does

    @precondition(lambda self: any(not place.running for place in self.service.held))
    @rule(data=st.data())
    def queue(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from([place for place in self.service.held if not place.running]))
        self.call(partial(place.tell, Queued(position=1, size=1)))

    @precondition(lambda self: self.service.held)
    @rule(data=st.data(), says=SAYS)
    def say(self, data: st.DataObject, says: list[str]) -> None:
        self.run(data.draw(st.sampled_from(self.service.held)), says)

    def run(self, place: Place, says: list[str]) -> None:
        if not place.running:
            place.running = True
            self.call(partial(place.tell, Started(queue_time=0.0)))
        for text in says:
            self.call(partial(place.tell, Delta(text)))

    @precondition(lambda self: any(place.running for place in self.service.held))
    @rule(data=st.data(), reason=st.sampled_from(["stop", "length", "timeout"]), last=TEXTS)
    def end_one(self, data: st.DataObject, reason: Any, last: str) -> None:
        place = data.draw(st.sampled_from([place for place in self.service.held if place.running]))
        self.call(partial(place.tell, Delta(last)))
        self.call(partial(place.end, "cancelled" if place.leaving else reason))

    # What else happens

    @precondition(lambda self: self.turns)
    @rule(what=st.sampled_from(["service", "database", "confirmation", "layer", "beat"]), steps=STEPS)
    def something_goes_wrong(self, what: str, steps: int) -> None:
        """For so many steps."""
        match what:
            case "service" if not self.service.down:
                self.service.down = True
                for place in self.service.held:
                    self.call(partial(place.end, "error", "unavailable"))
                self.later(steps, self.service_comes_back)
            case "database" if not self.tables.away:
                self.tables.away = True
                self.later(steps, self.database_comes_back)
            case "confirmation":  # of a write
                self.tables.loses = 1
            case "layer" if self.layer.there:
                self.mended = False
                self.call(self.layer.go)
                self.later(steps, partial(self.call, self.layer.come_back))
            case "beat":  # another process presumes the writer of an answer dead
                for row in self.tables.living()[:1]:
                    self.tables.end(row, INTERRUPTED)

    @rule(number=PROCESSES, steps=STEPS)
    def drain(self, number: int, steps: int) -> None:
        """Another one comes into its place."""
        process = self.processes[number]
        if process.draining is None:
            process.draining = self.loop.create_task(process.turns.drain(20))
            self.pass_time(1e-6)
            self.later(steps, partial(self.exit, number))

    def exit(self, number: int) -> None:
        process = self.processes[number]
        if not self.tables.away:
            self.beat()
        self.do(self.end(process))
        for turn in self.turns.values():
            for tab in [tab for tab in turn.tabs if tab.turns is process.turns]:
                assert tab.ends or self.row(turn).process != process.id
                self.close(turn, tab)
        if not self.tables.away:
            assert all(row.process != process.id for row in self.tables.living() if row.id in self.turns)
        self.processes[number] = self.do(self.process())

    @rule(seconds=st.sampled_from([0.05, 0.05, 1.5, 1.5, 1.5, 35.0, 150.0]))
    def wait(self, seconds: float) -> None:
        rows = {generation: self.row(turn) for generation, turn in self.turns.items()}
        waiting = {id for id, turn in self.turns.items() if not turn.place.running and rows[id].end is None}
        watched = {id for id in waiting if any(tab.turns is self.home(rows[id]) for tab in self.turns[id].tabs)}
        alone = {id for id in waiting if not self.turns[id].tabs}
        self.pass_time(seconds)
        if self.layer.there and seconds > 6:
            self.mended = True
        if self.tables.away:
            self.outage += seconds
            if self.outage > turn_module.STORE_SECONDS - 5:
                self.given_up |= set(self.turns)
            return
        for id in watched:
            assert rows[id].end is None or rows[id].end.code != "unwatched"
        if seconds > 120 + 25:  # the last leases too
            assert all(rows[id].end for id in alone)
        if seconds > 1:
            for row in self.tables.living():
                process, transcript = self.of(row), self.transcript(row)
                if process and transcript and transcript.end is None and row.state == "running":
                    assert row.answer.text == transcript.text  # the checkpoint
            self.beat()

    # What must hold

    @invariant()
    def what_is_due_happens(self) -> None:
        self.step += 1
        for due in [due for due in self.due if due[0] <= self.step]:
            self.due.remove(due)
            due[1]()

    @invariant()
    def what_was_told_is_what_is_stored(self) -> None:
        ending = {id for process in self.processes for id, ending in process.running().items() if ending}
        for turn in self.turns.values():
            row = self.row(turn)
            transcript = self.transcript(row)
            if transcript is None:
                continue
            if transcript.end is None:
                assert row.end is None or row.state == "interrupted" or row.id in ending
            else:
                assert transcript.end.reason == (row.state if row.end else "interrupted")
            if row.end and row.state != "interrupted":
                assert row.text == transcript.text

    @invariant()
    def every_watcher_sees_the_text_and_one_end(self) -> None:
        for turn in self.turns.values():
            row = self.row(turn)
            transcript = self.transcript(row)
            for tab in turn.tabs:
                if transcript is not None:
                    assert transcript.text.startswith(tab.text) or self.went_on(row)
                if tab.ends == ["interrupted"] and row.id in self.given_up:
                    continue  # its end may have been written; the page reads it
                if tab.ends:
                    assert tab.ends == [row.state if row.end else "interrupted"]
                    if row.end and row.state != "interrupted":
                        assert tab.text == row.text or (self.went_on(row) and tab.text.startswith(row.text))

    @invariant()
    def a_conversation_has_one_live_turn(self) -> None:
        living = [row.answer.conversation for row in self.tables.living()]
        assert len(living) == len(set(living))

    @invariant()
    def no_place_and_no_task_is_left_behind(self) -> None:
        running = {id: ending for process in self.processes for id, ending in process.running().items()}
        using = [self.turns[id].place for id, ending in running.items() if not ending]
        assert not any(place.ended for place in using)
        assert all(place in using or place.leaving for place in self.service.held)
        for process in self.processes:
            assert not process.turns._starting
            for transcript, _ in process.turns.hub._running.values():
                assert (transcript.end is None) == (transcript.generation in running)

    def teardown(self) -> None:
        for _, happens in self.due:
            happens()
        self.tables.loses = 0
        for place in self.service.held:
            self.call(partial(place.end, "cancelled" if place.leaving else "stop"))
        self.pass_time(45)
        self.beat()
        self.pass_time(15)
        assert not self.tables.living()
        for turn in self.turns.values():
            assert all(len(tab.ends) == 1 for tab in turn.tabs)
        for process in self.processes:
            self.do(self.end(process))
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
        self.limits.disable()
        self.patched.undo()


Chat.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestChat = Chat.TestCase
