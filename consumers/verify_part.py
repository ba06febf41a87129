"""One part of `verify`: some partitions, read from position 1, checked, and folded into fresh views.

How far it is stands beside the fresh views, in one transaction with what the rules remember and what was found; so a
part that was killed goes on from there. Rules, fresh views and analytics each have a position of their own: the views
commit every batch, the rest every SAVE_RECORDS, and a part that goes on gives each what it does not have yet.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from session_ledger.consumers.comparing_analytics import TABLE, AnalyticsComparison
from session_ledger.consumers.findings import Finding, Findings
from session_ledger.consumers.rules import DDL, LogRules
from session_ledger.consumers.tail import material
from session_ledger.consumers.wiring import VIEWS_FILE, current_projections
from session_ledger.domain.errors import LogCorrupt, UndecodableRecord
from session_ledger.domain.events import Event
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.projections.port import Entry
from session_ledger.projections.store import Store, digest
from session_ledger.schemas.codec import Codec
from session_ledger.security.files import PRIVATE_MODE

READ_RECORDS = 1000  # at a time: some 0.5 MB
SAVE_RECORDS = 50_000  # between two savings; a kill costs a few seconds
SCRATCH_FILE = "rules.db"
_DDL = f"""{DDL}
CREATE TABLE IF NOT EXISTS progress (
    partition INTEGER PRIMARY KEY, position INTEGER, analytics INTEGER, last BLOB, state TEXT
);
CREATE TABLE IF NOT EXISTS findings (what TEXT, message TEXT, partition INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS counted (more INTEGER, analytics_rows INTEGER, resumed INTEGER);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a part is to do. Partitions are numbers, -1 the control log."""

    place: Path
    """A directory of its own, where it may find what an earlier one left."""
    ends: Mapping[int, int]
    """Its partitions, and the position up to which each is to be read."""
    compared: Mapping[int, int]
    """Partition to the position at which the views under test stand."""
    over: Mapping[int, Mapping[int, str]]
    """Partition to quarantined position to reason."""
    analytics: Path | None
    """The ledger's directory, whose newest analytics snapshot is compared."""
    lasting: bool
    """Somebody may go on from what it leaves."""

    def told(self) -> dict[str, object]:
        """As JSON's values."""
        return {
            "place": str(self.place),
            "ends": self.ends,
            "compared": self.compared,
            "over": self.over,
            "analytics": None if self.analytics is None else str(self.analytics),
            "lasting": self.lasting,
        }

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Task:
        """The task that was told so."""
        return cls(
            place=Path(told["place"]),
            ends={int(one): end for one, end in told["ends"].items()},
            compared={int(one): position for one, position in told["compared"].items()},
            over={int(one): {int(at): why for at, why in over.items()} for one, over in told["over"].items()},
            analytics=None if told["analytics"] is None else Path(told["analytics"]),
            lasting=told["lasting"],
        )


def run_part(task: Task, log: Log, codec: Codec, on_progress: Callable[[int], None]) -> None:
    """Do it. `on_progress` is told the records of the part that are done. Raises LogUnavailable."""
    task.place.mkdir(mode=0o700, exist_ok=True)
    path, projections = task.place / VIEWS_FILE, current_projections()
    with (
        _Scratch(task.place / SCRATCH_FILE, lasting=task.lasting) as scratch,
        Store(path, log_id=log.log_id, projections=projections, lasting=task.lasting) as fresh,
        AnalyticsComparison(task.analytics, log.log_id, scratch.findings) as analytics,
    ):
        scratch.findings.resumed = sum(scratch.positions().values())
        done = 0
        for partition in (log.control, *log.partitions):
            if partition.partition in task.ends:
                replay = _Replay(partition, codec, task, fresh, scratch, analytics, len(log.partitions))
                done += replay.run(lambda records, before=done: on_progress(before + records))  # type: ignore[misc]


def take_part(place: Path, findings: Findings) -> None:
    """Add what a part that is done has found."""
    with _Scratch(place / SCRATCH_FILE, lasting=True) as scratch:
        for finding in scratch.findings.findings:
            findings.add(finding.what, finding.message, finding.partition, finding.position)
        findings.more += scratch.findings.more
        findings.resumed += scratch.findings.resumed
        for table, rows in scratch.findings.rows.items():
            findings.rows[table] = findings.rows.get(table, 0) + rows
        findings.ends.update(scratch.positions())


class _Scratch:
    """The scratch file of a part, in a transaction that `save` ends. Use as context."""

    def __init__(self, path: Path, *, lasting: bool) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE_MODE))  # the files beside it take over its mode
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute(f"PRAGMA journal_mode = {'WAL' if lasting else 'OFF'}")
        self.db.execute(f"PRAGMA synchronous = {'NORMAL' if lasting else 'OFF'}")
        self.db.executescript(_DDL)
        more, rows, resumed = self.db.execute("SELECT * FROM counted").fetchone() or (0, None, 0)
        self.findings = Findings(more=more, resumed=resumed, rows={} if rows is None else {TABLE: rows})
        self.findings.findings = [Finding(*row) for row in self.db.execute("SELECT * FROM findings")]
        self.db.execute("BEGIN")

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def positions(self) -> dict[int, int]:
        """Partition to the last position that was checked."""
        return dict(self.db.execute("SELECT partition, position FROM progress").fetchall())

    def progress(self, partition: int) -> tuple[int, int, bytes, str | None]:
        """(last position checked, last compared with the analytics, digest of the record there, the rules' state)."""
        row = self.db.execute(
            "SELECT position, analytics, last, state FROM progress WHERE partition = ?", (partition,)
        ).fetchone()
        return row or (0, 0, b"", None)

    def save(self, partition: int, position: int, analytics: int, last: bytes, state: str) -> None:
        """Commit that a partition is so far, with everything that was found and remembered."""
        found = self.findings
        self.db.execute("REPLACE INTO progress VALUES (?, ?, ?, ?, ?)", (partition, position, analytics, last, state))
        self.db.execute("DELETE FROM findings")
        self.db.executemany(
            "INSERT INTO findings VALUES (?, ?, ?, ?)",
            [(one.what, one.message, one.partition, one.position) for one in found.findings],
        )
        self.db.execute("DELETE FROM counted")
        self.db.execute("INSERT INTO counted VALUES (?, ?, ?)", (found.more, found.rows.get(TABLE), found.resumed))
        self.db.execute("COMMIT")
        self.db.execute("BEGIN")


class _Replay:
    """One partition, from where an earlier part was to its end; into the fresh views as far as the others are."""

    def __init__(
        self,
        log: PartitionLog,
        codec: Codec,
        task: Task,
        fresh: Store,
        scratch: _Scratch,
        analytics: AnalyticsComparison,
        partitions: int,
    ) -> None:
        self._log, self._codec, self._fresh, self._scratch, self._analytics = log, codec, fresh, scratch, analytics
        self._findings = scratch.findings
        self._partition = log.partition
        self._over = task.over.get(log.partition, {})
        self._end, self._compared = task.ends[log.partition], task.compared.get(log.partition, 0)
        self._rules = LogRules(self._findings, log.partition, partitions, scratch.db)
        self._checked, self._analyzed, self._last, state = scratch.progress(log.partition)
        if state is not None:
            self._rules.restore(state)

    def run(self, on_progress: Callable[[int], None]) -> int:
        """Read, check and fold; the last position that was read."""
        partition = self._partition
        self._resume()
        folded, analyzed_to = self._fresh.position(partition), self._analytics.position(partition)
        wanted = ((self._checked, self._end), (folded, self._compared), (self._analyzed, analyzed_to))
        after = min((done for done, to in wanted if done < to), default=self._end)
        self._folded, saved = folded, after
        try:
            while after < self._end and (records := self._log.read(after, READ_RECORDS)):
                dense = _dense(records, after)
                self._batch(dense)
                after += len(dense)
                on_progress(after)
                if after - saved >= SAVE_RECORDS:
                    self._save()
                    saved = after
                if len(dense) < len(records):
                    stands = records[len(dense)].position
                    raise LogCorrupt(f"position {stands} stands where {after + 1} belongs")
        except LogCorrupt as error:
            self._findings.add("gap", str(error), partition, after + 1)
        self._save()
        return after

    def _resume(self) -> None:
        """What was checked before must still stand there."""
        if not self._checked:
            return
        records = self._log.read(self._checked - 1, 1)
        if not records or digest(material(records[0])) != self._last:
            message = "the log has another record there than when an interrupted check read it, or none"
            self._findings.add("changed", message, self._partition, self._checked)

    def _save(self) -> None:
        self._scratch.save(self._partition, self._checked, self._analyzed, self._last, self._rules.state())

    def _batch(self, records: list[Record]) -> None:
        if not records:
            return
        new = [record.position > self._checked for record in records]
        events = [self._decode(record, tell) for record, tell in zip(records, new, strict=True)]
        self._rules.check([(r, event) for r, event, is_new in zip(records, events, new, strict=True) if is_new])
        rows: list[tuple[int, Event | None]] = []
        entries: list[Entry] = []
        for record, event in zip(records, events, strict=True):
            position = record.position
            kept = None if position in self._over else event
            if position > self._analyzed:
                rows.append((position, kept))
            if self._folded < position <= self._compared:
                entries.append(Entry(position, kept, material(record)))
        self._analytics.check(self._partition, rows)
        self._checked = max(self._checked, records[-1].position)
        self._analyzed = max(self._analyzed, records[-1].position)
        if records[-1].position == self._checked:
            self._last = digest(material(records[-1]))
        try:
            self._fresh.apply(self._partition, entries)
        except LogCorrupt:
            self._one_by_one(entries)

    def _decode(self, record: Record, tell: bool) -> Event | None:
        position = record.position
        if position in self._over and tell:
            self._findings.add("quarantined", f"stepped over: {self._over[position]}", self._partition, position)
        try:
            return self._codec.decode(record.value, record.topic, partition=self._partition, position=position)
        except UndecodableRecord as error:
            if position not in self._over and tell:
                self._findings.add("undecodable", error.reason, self._partition, position)
            return None

    def _one_by_one(self, entries: list[Entry]) -> None:
        """Fold what can be folded, and say what can not."""
        for entry in entries:
            try:
                self._fresh.apply(self._partition, [entry])
            except LogCorrupt as error:
                self._findings.add("fold", str(error), self._partition, entry.position)
                self._save()  # before the views have passed it: it would not be seen again
                self._fresh.apply(self._partition, [entry._replace(event=None)])


def _dense(records: list[Record], after: int) -> list[Record]:
    """The records up to the first gap or repeat."""
    for index, record in enumerate(records):
        if record.position != after + 1 + index:
            return records[:index]
    return records
