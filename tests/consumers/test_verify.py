"""`verify` finds what was changed, wherever it was changed, and nothing where nothing was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.consumers.findings import FINDINGS_MAX, Findings
from session_ledger.consumers.projector import Projector
from session_ledger.consumers.verify import verify
from session_ledger.consumers.wiring import current_projections, open_store
from session_ledger.domain.errors import ProjectionOutdated
from session_ledger.domain.events import Event, KeyRotated, MessageAdded, SessionCreated
from session_ledger.domain.ids import slot_of_user
from session_ledger.ledger.log.memory import MemoryLog
from session_ledger.projections.sessions import SessionsProjection
from session_ledger.projections.store import Store
from tests.projections.world import CODEC, World, record_of


class Checked:
    """A ledger with its views, to be changed behind their backs."""

    def __init__(self, directory: Path) -> None:
        self.log = MemoryLog(partitions=2)
        self.world = World(7, log=self.log).play(400)
        self.store = open_store(self.log, directory)
        self.projector = Projector(self.log, CODEC, self.store)
        self.projector.catch_up()

    def verify(self, **options: Any) -> Findings:
        return verify(self.log, CODEC, self.store, **options)

    def found(self, **options: Any) -> list[tuple[str, int | None, int | None]]:
        """(what, partition, position) of each finding."""
        return [(f.what, f.partition, f.position) for f in self.verify(**options).findings]

    def sql(self, statement: str) -> None:
        with sqlite3.connect(self.store.path) as db:
            db.execute(statement)
        db.close()

    def place(self, kind: str, nth: int = 0) -> tuple[int, int, Event]:
        """Where the nth event of that kind stands."""
        return [placed for placed in self.world.events if type(placed[2]).__name__ == kind][nth]

    def change(self, kind: str, nth: int = 0, **fields: object) -> tuple[int, int]:
        """Write an event anew with other fields, at its place in the log."""
        partition, position, event = self.place(kind, nth)
        records = self.log._store.records[partition]
        changed = record_of(position, replace(event, **fields))  # type: ignore[arg-type]
        kept = records[position - 1]
        records[position - 1] = kept._replace(value=changed.value)
        return partition, position


@pytest.fixture
def checked(tmp_path: Path) -> Iterator[Checked]:
    """A sound ledger with views that are up to date."""
    made = Checked(tmp_path)
    yield made
    made.store.close()


@given(seed=st.integers(0, 2**32))
@settings(max_examples=8, deadline=None)
def test_a_sound_ledger_has_no_findings(seed: int) -> None:
    """Whatever the history, log and views agree, in every row of every table."""
    world = World(seed).play(150)
    with open_store(world.log, None) as store:
        Projector(world.log, CODEC, store).catch_up()
        findings = verify(world.log, CODEC, store)
    assert [] == findings.findings
    assert len(world.events) == findings.records
    assert {table for p in current_projections() for table in p.tables} == set(findings.rows)


def test_views_that_are_behind_are_compared_where_they_are(checked: Checked) -> None:
    """What the views have not folded yet is no finding; the log's own rules are checked to its end."""
    at = checked.projector.positions()
    checked.world.play(60)
    findings = checked.verify()
    assert ([], at) == (findings.findings, findings.compared)
    assert checked.log.partitions[1].end() == findings.ends[1]


# --- the views ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE sessions SET messages = messages + 1", "changed_row"),
        ("UPDATE messages SET role = 'other' WHERE number = 1", "changed_row"),
        ("UPDATE session_content SET sealed = x'00' WHERE field = 'title'", "changed_row"),
        ("DELETE FROM messages WHERE number = 1", "missing_row"),
        ("DELETE FROM quota_buckets", "missing_row"),
        ("INSERT INTO user_limits VALUES ('acme', 'mallory', 99, NULL, NULL, 1)", "extra_row"),
        ("DROP TABLE agents", "table"),
        ("UPDATE positions SET root = zeroblob(32) WHERE projection = 'quotas'", "receipt"),
    ],
)  # fmt: skip
def test_a_changed_row_of_the_views_is_found(checked: Checked, statement: str, what: str) -> None:
    """A row changed, deleted or added in any table, and a lost table, are each named."""
    checked.sql(statement)
    assert {what} == {kind for kind, _, _ in checked.found()}


def test_a_finding_names_the_row_and_the_columns(checked: Checked) -> None:
    """The message says which row of which table, and which columns differ, never what is in them."""
    partition, position, event = checked.place("MessageAdded")
    checked.sql(f"UPDATE messages SET role = 'x', model = 'y' WHERE event_id = x'{event.event_id.hex()}'")
    (finding,) = checked.verify().findings
    assert (partition, position) == (finding.partition, finding.position)
    assert f"messages (session_id {event.originator_id.hex()}, number " in finding.message
    assert finding.message.endswith("is not what the log gives: role, model")
    assert str(finding).startswith(f"changed_row: partition {partition}, position {position}: messages")


def test_views_that_are_ahead_of_the_log_are_found(checked: Checked) -> None:
    """A log that lost its end under its views is a finding."""
    end = checked.log.partitions[1].end()
    del checked.log._store.records[1][end - 3 :]
    assert ("ahead", 1, end - 3) in checked.found()


def test_findings_are_bounded(checked: Checked) -> None:
    """Of very many differences the first are kept and the others counted."""
    findings = Findings()
    for number in range(FINDINGS_MAX + 5):
        findings.add("gap", str(number))
    assert (FINDINGS_MAX, 5, False) == (len(findings.findings), findings.more, findings.ok)


def test_views_of_other_projecting_code_are_not_compared(checked: Checked) -> None:
    """They would differ everywhere: rebuild first."""

    class Changed(SessionsProjection):
        version = SessionsProjection.version + 1

    with (
        Store(checked.store.path, log_id=checked.log.log_id, projections=[Changed()]) as changed,
        pytest.raises(ProjectionOutdated),
    ):
        verify(checked.log, CODEC, changed)


# --- the log ------------------------------------------------------------------------------------------------------


def test_an_altered_value_of_the_log_is_found(checked: Checked) -> None:
    """One changed field of one event shows in the receipt and in the row that it gave."""
    place = checked.change("MessageAdded", role="system")
    found = checked.found()
    assert ("changed_row", *place) in found
    assert ("receipt", place[0], None) in found


def test_an_altered_value_that_gives_the_same_rows_is_found(checked: Checked) -> None:
    """Even where no row differs, the receipt tells that the views were folded from other records."""
    partition, _ = checked.change("SessionEnded", command_digest=b"0" * 16, command_id=bytes(16))
    assert {("receipt", partition, None)} == set(checked.found())


ALTERED: list[tuple[str, Callable[[Checked], tuple[int, int]]]] = [
    ("version", lambda c: _reframe(c, version=99)),
    ("framing", lambda c: _reframe(c, version=99)),
    ("framing", lambda c: _reframe(c, key="acme/mallory")),
    ("framing", lambda c: _reframe(c, originator_id=b"o" * 16)),
    ("undecodable", lambda c: _reframe(c, topic="session_ledger.events.SessionEnded")),
    ("undecodable", lambda c: _reframe(c, value=b"\xc3\x01")),
    ("gap", lambda c: _reframe(c, position=10_000)),
    ("clock", lambda c: c.change("MessageAdded", 5, recorded_at=1)),
    ("event_id", lambda c: c.change("MessageAdded", 5, event_id=c.place("MessageAdded", 4)[2].event_id)),
    ("session", lambda c: c.change("MessageAdded", 5, message_number=77)),
    ("limit", lambda c: c.change("SessionCreated", 3, session_limit=0)),
    ("agent", lambda c: c.change("AgentReleased", 0, session_id=b"s" * 16)),
    ("key", lambda c: c.change("MessageAdded", 5, key_id=b"k" * 16)),
    ("key", lambda c: c.change("MessageAdded", 5, key_id=None)),
    ("key", lambda c: c.change("KeyRotated", 0, generation=1)),
    ("partition", lambda c: c.change("QuotaSet", 0, tenant="acme", user=_user_elsewhere(c.place("QuotaSet")[0]))),
]


def _user_elsewhere(partition: int) -> str:
    """A user of another partition."""
    return next(user for user in "abcdefgh" if slot_of_user("acme", user) % 2 != partition)


def _reframe(checked: Checked, **framing: Any) -> tuple[int, int]:
    partition, position, _ = checked.place("MessageAdded", 5)
    records = checked.log._store.records[partition]
    records[position - 1] = records[position - 1]._replace(**framing)
    return partition, position


@pytest.mark.parametrize(("what", "alter"), ALTERED, ids=[f"{n}-{what}" for n, (what, _) in enumerate(ALTERED)])
def test_a_log_that_breaks_a_rule_is_found(
    checked: Checked, what: str, alter: Callable[[Checked], tuple[int, int]]
) -> None:
    """Each rule of the log, broken at one place, is found, and the place is named."""
    partition, position = alter(checked)
    places = [(of, at) for kind, of, at in checked.found() if kind == what]
    assert (partition, position) in places


def test_what_the_key_before_the_last_sealed_is_found(checked: Checked) -> None:
    """After a rotation the key before may still come, after a second one no more: a record that names it is found."""
    everything = [event for _, _, event in checked.world.events]
    rotated = [event for event in everything if isinstance(event, KeyRotated)]
    created = [event for event in everything if isinstance(event, SessionCreated)]
    messages = [event for event in everything if isinstance(event, MessageAdded)]
    twice, nth = next(
        (event, n)
        for event in rotated
        for n, one in enumerate(messages)
        if event.generation == 3 and one.session_id == event.session_id and one.version > event.version
    )
    first = next(event.key_id for event in created if event.session_id == twice.session_id)
    place = checked.change("MessageAdded", nth, key_id=first)
    assert ("key", *place) in checked.found()
    second = next(event for event in rotated if event.session_id == twice.session_id)
    place = checked.change("MessageAdded", nth, key_id=second.key_id)
    assert "key" not in [what for what, *_ in checked.found()]


def test_a_batch_id_that_comes_back_is_found(checked: Checked) -> None:
    """One append is one run of records: its id does not stand anywhere else."""
    records = checked.log._store.records[1]
    records[-1] = records[-1]._replace(batch_id=records[0].batch_id)
    assert "batch" in {what for what, _, _ in checked.found()}


def test_an_acknowledged_position_that_is_missing_is_found(checked: Checked) -> None:
    """A log that ends before what its owner has acknowledged has lost something."""
    end = checked.log.partitions[0].end()
    assert [("lost", 0, end + 1)] == checked.found(to={0: end + 2})


def test_a_quarantined_record_stays_a_finding(checked: Checked) -> None:
    """Stepping over a record does not make the ledger sound."""
    checked.log._store.records[-1].clear()
    fresh = open_store(checked.log, None)
    partition, position, _ = checked.place("UserLimitsSet")
    records = checked.log._store.records[partition]
    records[position - 1] = records[position - 1]._replace(value=b"damaged")
    projector = Projector(checked.log, CODEC, fresh)
    projector.quarantine(partition, position, "why not")
    projector.catch_up()
    findings = verify(checked.log, CODEC, fresh).findings
    assert [("quarantined", partition, position)] == [(f.what, f.partition, f.position) for f in findings]
    fresh.close()


def test_nothing_is_left_behind(checked: Checked, tmp_path: Path) -> None:
    """The fresh views and the scratch file are gone afterwards; the views are as they were."""
    before = sorted(path.name for path in tmp_path.iterdir())
    told: list[int] = []
    checked.verify(on_progress=told.append)
    assert before == sorted(path.name for path in tmp_path.iterdir())
    assert len(checked.world.events) == told[-1]
