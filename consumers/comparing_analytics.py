"""Compares a snapshot of the analytics database with the log, row for row, as `verify` reads the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from session_ledger.consumers.analytics import FOLDER
from session_ledger.consumers.findings import Findings
from session_ledger.domain.events import Event
from session_ledger.domain.ids import format_id
from session_ledger.projections.analytics.columns import table_of
from session_ledger.projections.analytics.snapshots import Snapshot, latest, open_latest

_BETWEEN = "FROM events WHERE partition = $partition AND position BETWEEN $first AND $last"
TABLE = "analytics events"


class AnalyticsComparison:
    """The newest snapshot, to be compared with what the log gives; where there is none, nothing is. Use as context."""

    def __init__(self, directory: Path | None, log_id: str, findings: Findings) -> None:
        """`directory`: the ledger's. Raises LogUnavailable where another version published the snapshot."""
        place = None if directory is None else directory / FOLDER
        self._snapshot: Snapshot | None = None
        self._findings = findings
        if place is None or latest(place) is None:
            return
        self._snapshot = open_latest(place)
        if self._snapshot.log_id != log_id:
            findings.add("foreign", f"{self._snapshot.path.name} was made from the log {self._snapshot.log_id}")
            self.close()
            return
        self._snapshot.connection.execute("CREATE TEMP TABLE fresh AS FROM events LIMIT 0")
        findings.rows.setdefault(TABLE, 0)

    def __enter__(self) -> AnalyticsComparison:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the snapshot. Idempotent."""
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def position(self, partition: int) -> int:
        """How far the snapshot has come in the partition."""
        return 0 if self._snapshot is None else self._snapshot.positions.get(partition, 0)

    @property
    def compares(self) -> bool:
        """There is a snapshot of this log."""
        return self._snapshot is not None

    def check(self, partition: int, events: Sequence[tuple[int, Event | None]]) -> None:
        """Compare some records that follow each other: (position, event); None: no row may stand there."""
        if self._snapshot is None:
            return
        compared = [pair for pair in events if pair[0] <= self._snapshot.positions.get(partition, 0)]
        if not compared:
            return
        connection = self._snapshot.connection
        rows = [(position, event) for position, event in compared if event is not None]
        if rows:
            connection.register("batch", table_of(partition, rows))
            connection.execute("INSERT INTO fresh BY NAME SELECT * FROM batch")
            connection.unregister("batch")
        span = {"partition": partition, "first": compared[0][0], "last": compared[-1][0]}
        given = connection.execute(f"SELECT count(*) {_BETWEEN}", span).fetchall()[0][0]
        for what, message, query in (
            ("missing_row", "is missing, or is not what the log gives", f"FROM fresh EXCEPT ALL (SELECT * {_BETWEEN})"),
            ("extra_row", "stands there, the log does not give it", f"SELECT * {_BETWEEN} EXCEPT ALL (FROM fresh)"),
        ):
            found = connection.execute(
                f"SELECT position, event_type, event_id::VARCHAR FROM ({query}) ORDER BY 1", span
            ).fetchall()
            for position, event_type, event_id in found:
                self._add(what, message, partition, position, event_type, event_id)
        connection.execute("DELETE FROM fresh")
        self._findings.rows[TABLE] += given

    def _add(self, what: str, message: str, partition: int, position: int, event_type: str, event_id: Any) -> None:
        name = event_id if isinstance(event_id, str) else format_id(event_id)
        self._findings.add(what, f"{TABLE} ({event_type} {name}) {message}", partition, position)

    def finish(self, ends: dict[int, int]) -> None:
        """What can be told only at the end: rows beyond the log, or of no partition that it has."""
        if self._snapshot is None:
            return
        for partition, position in self._snapshot.positions.items():
            if position > ends.get(partition, 0):
                message = f"the analytics are at {position}, the log ends at {ends.get(partition, 0)}"
                self._findings.add("ahead", message, partition, ends.get(partition, 0))
        beyond = self._snapshot.connection.execute(
            "SELECT partition, count(*) FROM events LEFT JOIN positions USING (partition)"
            " WHERE events.position > coalesce(positions.position, 0) OR events.position < 1 GROUP BY ALL"
        ).fetchall()
        for partition, count in beyond:
            self._findings.add("extra_row", f"{TABLE}: {count} rows stand beyond its own position", partition)
