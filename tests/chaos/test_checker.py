"""The checker finds every kind of violation: a good log and its history, and one hand-made fault in each."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.events import AgentReleased, QuotaConsumed, SessionEvicted
from session_ledger.domain.ids import format_id, parse_id
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_log
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import parse_url
from tests.chaos.checker import check, read_whole
from tests.chaos.history import History, Outcome, Recorder, Try, read
from tests.chaos.workload import Known, Workload, setting_up
from tests.ledger.support import Stored, fresh_id

COMMANDS = 500


@dataclass
class Run:
    """A history and the log that came of it, to be tampered with."""

    history: History
    found: list[Stored]

    def kinds(self) -> set[str]:
        return {violation.kind for violation in check(self.history, self.found)}

    def acknowledged(self, what: str = "AddMessage", number: int = -1) -> Try:
        """One of the tries that were acknowledged and wrote one event."""
        fit = [one for one in self.history.tries if one.wrote and one.what == what and len(self.of(one)) == 1]
        return fit[number]

    def of(self, one: Try) -> list[int]:
        """Where in `found` the events of that command are."""
        name = parse_id(one.command_id)
        return [index for index, stored in enumerate(self.found) if stored.event.command_id == name]

    def first(self, event_type: type) -> int:
        """Where in `found` the first event of that type is."""
        return next(index for index, stored in enumerate(self.found) if isinstance(stored.event, event_type))

    def tell(self, one: Try, **changes: Any) -> Try:
        """Change what a try was told."""
        changed = replace(one, **changes)
        self.history.tries[self.history.tries.index(one)] = changed
        return changed

    def record(self, index: int, **changes: Any) -> None:
        """Change a record's frame."""
        one = self.found[index]
        self.found[index] = one._replace(record=one.record._replace(**changes))

    def event(self, index: int, **changes: Any) -> None:
        """Change an event."""
        self.found[index] = self.found[index]._replace(event=replace(self.found[index].event, **changes))

    def take_out(self, *indexes: int) -> None:
        """Remove records, and close the gaps that they leave."""
        partition = self.found[indexes[0]].partition
        self.found = [one for index, one in enumerate(self.found) if index not in indexes]
        self.number(partition)

    def put_in(self, index: int, one: Stored) -> None:
        """Add a record, and move the others on."""
        self.found.insert(index, one)
        self.number(one.partition)

    def number(self, partition: int) -> None:
        """Dense positions, whatever stands there."""
        position = 0
        for index, one in enumerate(self.found):
            if one.partition == partition:
                position += 1
                self.record(index, position=position)


def drawn(recorder: Recorder, ledger: Ledger) -> None:
    """Run random commands one after the other, and some at once so that they share an append."""
    known, luck = Known(), random.Random(1)
    workload = Workload(luck, known, 1)
    for command in [*setting_up(1), *(workload.next() for _ in range(50))]:
        _send(recorder, ledger, command, known)
    for _ in range(COMMANDS):
        _send(recorder, ledger, workload.next(), known)


def _send(recorder: Recorder, ledger: Ledger, command: c.Command, known: Known) -> None:
    with recorder.trying(command) as answer:
        answer.result = ledger.submit(command).result()
    if answer.result is not None:
        known.learn(command, answer.result)


@pytest.fixture(scope="module")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What a ledger made of random commands."""
    path = tmp_path_factory.mktemp("run") / "history.jsonl"
    output = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    with Ledger.open("memory:") as ledger:
        drawn(Recorder(output, "test"), ledger)
        found, broken = read_whole(ledger.log)
    os.close(output)
    assert [] == broken
    return Run(read([path]), found)


@pytest.fixture
def run(good_run: Run) -> Run:
    """The same, for one test to tamper with."""
    return Run(History(list(good_run.history.tries), []), list(good_run.found))


def test_a_good_run_has_no_violation(run: Run) -> None:
    """Hundreds of commands that evict, refuse and contend are found to be right, and all kinds of outcome occur."""
    assert [] == check(run.history, run.found)
    assert {Outcome.ACKNOWLEDGED, Outcome.REFUSED} == {one.outcome for one in run.history.tries}
    assert any(isinstance(one.event, SessionEvicted) for one in run.found)
    assert any(one.outcome is Outcome.ACKNOWLEDGED and not one.wrote for one in run.history.tries)


def lose_the_last(run: Run) -> None:
    del run.found[run.of(run.acknowledged())[0]]
    run.number(0)


def leave_a_gap(run: Run) -> None:
    del run.found[100]


def write_an_event_twice(run: Run) -> None:
    run.put_in(101, run.found[100])


def run_a_command_twice(run: Run) -> None:
    [index] = run.of(run.acknowledged(number=3))
    run.put_in(index + 20, run.found[index])
    run.event(index + 20, event_id=os.urandom(16))


def swap_two_commands(run: Run) -> None:
    """Log and answers agree; only that the second was sent after the first had been acknowledged tells."""
    first, second = run.acknowledged(number=3), run.acknowledged(number=9)
    [one], [two] = run.of(first), run.of(second)
    run.found[one], run.found[two] = run.found[two], run.found[one]
    run.number(0)
    run.tell(first, position=second.position)
    run.tell(second, position=first.position)


def split_a_command(run: Run) -> None:
    run.record(run.first(SessionEvicted), batch_id=os.urandom(16))


def use_a_batch_id_again(run: Run) -> None:
    run.record(200, batch_id=run.found[100].record.batch_id)


def give_one_batch_two_times(run: Run) -> None:
    index = run.first(SessionEvicted)
    run.event(index, recorded_at=run.found[index].event.recorded_at - 1)


def go_back_in_time(run: Run) -> None:
    run.event(100, recorded_at=run.found[99].event.recorded_at - 1)


def tell_another_place(run: Run) -> None:
    one = run.acknowledged()
    run.tell(one, position=one.position - 1)


def tell_another_partition(run: Run) -> None:
    run.tell(run.acknowledged(), partition=1)


def answer_a_repeat_differently(run: Run) -> None:
    one = run.acknowledged(number=3)
    assert one.returned_ns is not None
    run.history.tries.append(replace(one, position=one.position + 1, invoked_ns=one.returned_ns + 1))


def record_what_failed(run: Run) -> None:
    run.tell(run.acknowledged(), outcome=Outcome.FAILED, wrote=False)


def record_what_was_refused(run: Run) -> None:
    run.tell(run.acknowledged(), outcome=Outcome.REFUSED, wrote=False)


def refuse_what_was_unknown_and_stands(run: Run) -> None:
    one = run.tell(run.acknowledged(), outcome=Outcome.UNKNOWN, wrote=False)
    assert one.returned_ns is not None
    later = one.returned_ns + 1
    run.history.tries.append(replace(one, outcome=Outcome.REFUSED, invoked_ns=later, returned_ns=later + 1))


def write_for_a_read(run: Run) -> None:
    run.tell(run.acknowledged(), wrote=False)


def record_what_nobody_sent(run: Run) -> None:
    run.history.tries.remove(run.acknowledged())


def _read_of(run: Run) -> Try:
    return [one for one in run.history.tries if one.outcome is Outcome.ACKNOWLEDGED and not one.wrote][-1]


def answer_a_read_from_the_past(run: Run) -> None:
    one = _read_of(run)
    run.tell(one, position=1, invoked_ns=one.invoked_ns + 2_000_000_000)


def answer_a_read_from_the_future(run: Run) -> None:
    run.tell(_read_of(run), position=len(run.found) + 1)


def record_half_an_eviction(run: Run) -> None:
    run.take_out(run.first(SessionEvicted))


def keep_the_lease_of_one_that_ended(run: Run) -> None:
    run.take_out(run.first(AgentReleased))


def exceed_a_quota(run: Run) -> None:
    run.event(run.first(QuotaConsumed), amount=Decimal(1000))


VIOLATIONS: list[tuple[Callable[[Run], None], str]] = [
    (lose_the_last, "lost"),
    (leave_a_gap, "position"),
    (write_an_event_twice, "doubled"),
    (run_a_command_twice, "doubled"),
    (swap_two_commands, "order"),
    (split_a_command, "split"),
    (use_a_batch_id_again, "batch"),
    (give_one_batch_two_times, "batch"),
    (go_back_in_time, "clock"),
    (tell_another_place, "moved"),
    (tell_another_partition, "moved"),
    (answer_a_repeat_differently, "answers"),
    (record_what_failed, "phantom"),
    (record_what_was_refused, "phantom"),
    (refuse_what_was_unknown_and_stands, "phantom"),
    (write_for_a_read, "phantom"),
    (record_what_nobody_sent, "foreign"),
    (answer_a_read_from_the_past, "stale"),
    (answer_a_read_from_the_future, "stale"),
    (record_half_an_eviction, "rule"),
    (keep_the_lease_of_one_that_ended, "rule"),
    (exceed_a_quota, "rule"),
]


@pytest.mark.parametrize(("tamper", "kind"), VIOLATIONS, ids=lambda value: getattr(value, "__name__", value))
def test_every_violation_is_found(run: Run, tamper: Callable[[Run], None], kind: str) -> None:
    """The fault is told by its kind, with its evidence."""
    tamper(run)
    assert kind in run.kinds()


def test_a_lost_append_of_unknown_outcome_is_none(run: Run) -> None:
    """What was unknown may be there or not; one that died, too, and a repeat that failed says nothing of it."""
    last = run.found[-1]
    assert last.event.command_id is not None
    assert -1 == last.partition
    one = run.history.by_command()[format_id(last.event.command_id)][-1]
    open_ones = [
        replace(one, outcome=Outcome.UNKNOWN, wrote=False),
        replace(one, outcome=Outcome.UNKNOWN, wrote=False, returned_ns=None),
    ]
    failed = replace(one, outcome=Outcome.FAILED, wrote=False, invoked_ns=one.invoked_ns + 1)
    for tries in ([open_ones[0]], [open_ones[1]], [open_ones[0], failed]):
        others = [other for other in run.history.tries if other is not one]
        history = History([*others, *tries], [])
        assert [] == check(history, run.found)
        assert [] == check(history, run.found[:-1])
        assert [tries[-1].command_id] == [open_one.command_id for open_one in history.unsettled()]


def test_a_clock_far_off_is_found(run: Run) -> None:
    """What a writer recorded by a clock two minutes off is told, ahead and behind; one half a minute off is not."""
    one = run.acknowledged()
    wall_us_at_0 = run.found[run.of(one)[0]].event.recorded_at - one.invoked_ns // 1000
    for off_s, kinds in ((0, set()), (30, set()), (-120, {"clock"}), (120, {"clock"})):
        found = check(run.history, run.found, wall_us_at_0=wall_us_at_0 + off_s * 1_000_000)
        assert kinds == {violation.kind for violation in found}


def test_a_log_that_can_not_be_read_is_told(sqlite_url: str, directory: Path) -> None:
    """A record that is missing in the file is a violation, and what stands before it is judged all the same."""
    with Ledger.open(sqlite_url) as ledger:
        for _ in range(5):
            ledger.create_session("t", "u")
    with sqlite3.connect(directory / "log.db") as connection:
        connection.execute("DELETE FROM events WHERE position = 3")
    connection.close()
    log = open_log(parse_url(sqlite_url), Settings(), write=False)
    found, broken = read_whole(log)
    log.close()
    assert ["unreadable"] == [violation.kind for violation in broken]
    assert 3 > sum(one.partition == 0 for one in found)


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    """A history whose process was killed tells what was whole; the command without an answer is unknown."""
    path = tmp_path / "history.jsonl"
    with path.open("wb") as file:
        recorder = Recorder(file.fileno(), "test")
        command = c.CheckQuota(
            tenant="t", user="u", command_id=parse_id(fresh_id()), resource="tokens", amount=Decimal(1)
        )
        with recorder.trying(command):
            pass
    whole, cut = path.read_text().splitlines(keepends=True)
    path.write_text(whole + cut[:20] + "\n")
    [one] = read([path]).tries
    assert (Outcome.UNKNOWN, None, command) == (one.outcome, one.returned_ns, one.command())
