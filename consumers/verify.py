"""`verify`: the log against its own rules, and the views and the analytics, row for row, against the log.

The log is read once, from position 1, into fresh views in a temporary file; every table is then compared with the views
as they were when the check began. Nothing is changed, and neither writers nor readers are held up.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from session_ledger.consumers.comparing import Comparison
from session_ledger.consumers.comparing_analytics import AnalyticsComparison
from session_ledger.consumers.findings import Findings
from session_ledger.consumers.rules import LogRules
from session_ledger.consumers.tail import material
from session_ledger.domain.errors import LogCorrupt, ProjectionOutdated, UndecodableRecord
from session_ledger.domain.events import Event
from session_ledger.ledger.log.port import Log, PartitionLog, Record
from session_ledger.projections.port import Entry
from session_ledger.projections.store import Store
from session_ledger.schemas.codec import Codec

READ_RECORDS = 1000  # at a time: some 0.5 MB


def verify(
    log: Log,
    codec: Codec,
    store: Store,
    *,
    to: Mapping[int, int] | None = None,
    analytics: Path | None = None,
    on_progress: Callable[[int], None] = lambda records: None,
) -> Findings:
    """Check the whole log and the views in `store`; the views may be behind the log, and go on meanwhile.

    `analytics`: the ledger's directory, whose newest analytics snapshot, if there is one, is compared as well.

    `to`: positions that must be there (partition to position, -1 the control log), such as those that the owner has
    acknowledged; None: each log's end as it is seen here. `on_progress` is told the records read so far.
    Raises ProjectionOutdated where the views are of another version of the projecting code, LogUnavailable.
    """
    if store.outdated:
        raise ProjectionOutdated(f"{store.path} was built by another version of the projections: rebuild it first")
    findings = Findings()
    with (
        AnalyticsComparison(analytics, log.log_id, findings) as tables_of_analytics,
        Store.temporary(log_id=log.log_id, projections=store.projections, directory=store.directory) as fresh,
        tempfile.TemporaryDirectory(prefix="verify-", dir=fresh.directory) as scratch,
    ):
        comparison = Comparison(store.path, fresh.path)
        rules = LogRules(findings, len(log.partitions), Path(scratch) / "scratch.db")
        try:
            for partition in (log.control, *log.partitions):
                replay = _Replay(partition, codec, store, fresh, comparison, rules, tables_of_analytics, findings)
                replay.run(to, on_progress)
            rules.finish()
            tables_of_analytics.finish(findings.ends)
            _compare_receipts(fresh, comparison, findings)
            tables = [table for projection in store.projections for table in projection.tables]
            comparison.compare(tables, findings)
        finally:
            rules.close()
            comparison.close()
    return findings


class _Replay:
    """One partition, from position 1 to its end; into the fresh views as far as the views under test are."""

    def __init__(
        self,
        log: PartitionLog,
        codec: Codec,
        store: Store,
        fresh: Store,
        comparison: Comparison,
        rules: LogRules,
        analytics: AnalyticsComparison,
        findings: Findings,
    ) -> None:
        self._analytics = analytics
        self._log, self._codec, self._fresh = log, codec, fresh
        self._rules, self._findings = rules, findings
        self._partition = log.partition
        self._over = {record.position: record.reason for record in store.quarantined(log.partition)}
        reached = {position for (_, of), (position, _, _) in comparison.positions.items() if of == log.partition}
        self._compared = min(reached, default=0)
        if len(reached) > 1:
            findings.add("position", f"the projections stand at {sorted(reached)}", log.partition)

    def run(self, to: Mapping[int, int] | None, on_progress: Callable[[int], None]) -> None:
        """Read, check and fold."""
        partition, after = self._partition, 0
        acknowledged = (to or {}).get(partition, 0)
        wanted = max(self._log.end(), acknowledged, self._compared)
        try:
            while after < wanted and (records := self._log.read(after, READ_RECORDS)):
                dense = _dense(records, after)
                self._batch(dense)
                after += len(dense)
                self._findings.records += len(dense)
                on_progress(self._findings.records)
                if len(dense) < len(records):
                    stands = records[len(dense)].position
                    raise LogCorrupt(f"position {stands} stands where {after + 1} belongs")
        except LogCorrupt as error:
            self._findings.add("gap", str(error), partition, after + 1)
        if after < acknowledged:
            message = f"the log ends at {after}, positions up to {acknowledged} are acknowledged"
            self._findings.add("lost", message, partition, after + 1)
        if after < self._compared:
            message = f"the views are at {self._compared}, the log ends at {after}"
            self._findings.add("ahead", message, partition, after)
        self._findings.ends[partition] = after
        self._findings.compared[partition] = min(self._compared, after)

    def _batch(self, records: list[Record]) -> None:
        checked: list[tuple[Record, Event | None]] = []
        entries: list[Entry] = []
        for record in records:
            event = self._decode(record)
            checked.append((record, event))
            if record.position <= self._compared:
                folded = None if record.position in self._over else event
                entries.append(Entry(record.position, folded, material(record)))
        self._rules.check(self._partition, checked)
        rows = [(record.position, None if record.position in self._over else event) for record, event in checked]
        self._analytics.check(self._partition, rows)
        try:
            self._fresh.apply(self._partition, entries)
        except LogCorrupt:
            self._one_by_one(entries)

    def _decode(self, record: Record) -> Event | None:
        position = record.position
        if position in self._over:
            self._findings.add("quarantined", f"stepped over: {self._over[position]}", self._partition, position)
        try:
            return self._codec.decode(record.value, record.topic, partition=self._partition, position=position)
        except UndecodableRecord as error:
            if position not in self._over:
                self._findings.add("undecodable", error.reason, self._partition, position)
            return None

    def _one_by_one(self, entries: list[Entry]) -> None:
        """Fold what can be folded, and say what can not."""
        for entry in entries:
            try:
                self._fresh.apply(self._partition, [entry])
            except LogCorrupt as error:
                self._findings.add("fold", str(error), self._partition, entry.position)
                self._fresh.apply(self._partition, [entry._replace(event=None)])


def _dense(records: list[Record], after: int) -> list[Record]:
    """The records up to the first gap or repeat."""
    for index, record in enumerate(records):
        if record.position != after + 1 + index:
            return records[:index]
    return records


def _compare_receipts(fresh: Store, comparison: Comparison, findings: Findings) -> None:
    """The views were folded from the very records that the log holds now."""
    rebuilt = {(receipt.projection, receipt.partition): receipt for receipt in fresh.receipts()}
    for (projection, partition), (position, _, root) in sorted(comparison.positions.items()):
        receipt = rebuilt.get((projection, partition))
        if receipt is not None and receipt.position == position and receipt.root != root:
            message = f"{projection} was folded from other records than the log holds up to position {position}"
            findings.add("receipt", message, partition)
