"""One partition of a `SQLiteLog`: appends through the log's writer, reads through its pool of connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from session_ledger.domain.errors import LedgerClosed, LogCorrupt, NotOwner
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.log.port import Record
from session_ledger.ledger.log.recorder import RecordedPartition
from session_ledger.ledger.log.sqlite_readers import Readers, holder
from session_ledger.ledger.log.sqlite_schema import batches_table, events_table
from session_ledger.ledger.log.sqlite_wake import signal_of
from session_ledger.ledger.log.sqlite_writer import PartitionSQL, Writer, load_topics

POLL_S = 0.02  # how often a waiting reader looks for another process's commits: some 10 microseconds each


class SQLitePartition(RecordedPartition):
    """The partition or the control log of a `SQLiteLog`. Thread-safe."""

    def __init__(
        self,
        partition: int,
        path: Path,
        readers: Readers,
        writer: Writer | None,
        topics: dict[int, str],
    ) -> None:
        """`topics` (number -> name) is what readers have seen so far; the partitions of a log share it."""
        super().__init__()
        self.partition = partition
        self._path, self._readers, self._writer, self._topics = path, readers, writer, topics
        self._signal = signal_of(path)
        self._closed = False
        self._sql = PartitionSQL(partition)
        events, batches = events_table(partition), batches_table(partition)
        self._select = (
            f"SELECT position, originator_id, version, topic, value FROM {events}"
            " WHERE position > ? ORDER BY position LIMIT ?"
        )
        self._select_batches = (
            f"SELECT first_position, count, batch_id FROM {batches} WHERE first_position <= ?1 AND first_position >="
            f" (SELECT max(first_position) FROM {batches} WHERE first_position <= ?2) ORDER BY first_position"
        )
        self._select_end = f"SELECT max(position) FROM {events}"
        self._select_versions = (
            f"SELECT originator_id, version, topic, value FROM {events}"
            " WHERE originator_id = ? AND version > ? AND version <= ? ORDER BY version"
        )

    # --- writing --------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> None:
        """See the port; also VersionConflict, an AppendFailed, for a version that stands in the log already."""
        self._owner().append(self._sql, records)

    def settle(self, batch_id: bytes, first_position: int) -> bool:
        """See the port."""
        return self._owner().settle(self._sql, batch_id, first_position)

    def prove_ownership(self) -> None:
        """See the port: reads the epoch in the database, now."""
        writer = self._owner()
        with self._lend() as connection:
            writer.assert_owner(connection)

    def _owner(self) -> Writer:
        self._assert_open()
        if self._writer is None:
            raise NotOwner(f"{self._path} is open for reading only; it is owned by {holder(self._path)}")
        return self._writer

    def _assert_open(self) -> None:
        if self._closed:
            raise LedgerClosed(f"the log {self._path} is closed")

    @contextmanager
    def _lend(self) -> Iterator[sqlite3.Connection]:
        self._assert_open()
        with self._readers.lend() as connection:
            yield connection

    # --- reading --------------------------------------------------------------------------------------------------

    def read(self, after: int, limit: int) -> list[Record]:
        """See the port."""
        with self._lend() as connection:
            rows = connection.execute(self._select, (after, limit)).fetchall()
            if not rows:
                return []
            batches = connection.execute(self._select_batches, (rows[-1][0], after + 1)).fetchall()
            names = self._names(connection, {row[3] for row in rows})
        records: list[Record] = []
        expected = after + 1
        for first, count, batch_id in batches:
            if first > expected or (records and first != expected):
                break  # no append explains the next record
            of_batch = rows[expected - after - 1 : first + count - after - 1]
            for position, originator_id, version, topic, value in of_batch:
                if value.__class__ is not bytes or originator_id.__class__ is not bytes or version.__class__ is not int:
                    what = (
                        f"position {position} of partition {self.partition} is no record: a column is of another type"
                    )
                    raise _corrupt(position, f"{self._path}: {what}")
                if position != expected:
                    raise _corrupt(expected, f"{self._path}: partition {self.partition} lacks position {expected}")
                records.append(Record(position, batch_id, originator_id, version, names[topic], value))
                expected += 1
        if len(records) != len(rows):
            what = f"no append explains position {expected} of partition {self.partition}"
            raise _corrupt(expected, f"{self._path}: {what}")
        return records

    def _names(self, connection: sqlite3.Connection, wanted: set[int]) -> dict[int, str]:
        if not wanted <= self._topics.keys():
            self._topics.update({number: name for name, number in load_topics(connection).items()})
            for number in wanted - self._topics.keys():
                raise LogCorrupt(f"{self._path}: no topic has the number {number}")
        return self._topics

    def end(self) -> int:
        """See the port."""
        with self._lend() as connection:
            return self._end(connection)

    def _end(self, connection: sqlite3.Connection) -> int:
        return int(connection.execute(self._select_end).fetchone()[0] or 0)

    def wait(self, after: int, timeout_s: float) -> bool:
        """See the port. Woken by commits in this process, and by polling for those of others.

        Also True when the log is closed meanwhile: the next look raises LedgerClosed.
        """
        deadline = monotonic() + timeout_s
        with self._lend() as connection:
            commits, version = self._signal.commits, data_version(connection)
            while self._end(connection) <= after:
                while True:
                    left = deadline - monotonic()
                    if left <= 0:
                        return self._closed
                    changed = self._signal.wait(commits, min(left, POLL_S))
                    if self._closed:
                        return True
                    seen = data_version(connection)
                    if changed or seen != version:
                        commits, version = self._signal.commits, seen
                        break
            return True

    def clock_us(self) -> int | None:
        """None: the machine's clock is the log's."""
        return None

    def close(self) -> None:
        """Refuse every further call and wake who waits; the log closes the file and gives up ownership. Idempotent."""
        self._closed = True
        self._signal.announce()

    # --- the library's port, by SQL -------------------------------------------------------------------------------

    def _assert_unrecorded(self, versions: Sequence[tuple[bytes, int]]) -> None:
        """The unique index refuses them."""

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """The originator's events with versions above `gt` and up to `lte`, by version."""
        identifier = parse_id(originator_id, "originator_id")
        above = -1 if gt is None else gt
        up_to = 2**63 - 1 if lte is None else lte
        with self._lend() as connection:
            rows = connection.execute(
                f"{self._select_versions} {'DESC' if desc else 'ASC'} LIMIT ?",
                (identifier, above, up_to, -1 if limit is None else limit),
            ).fetchall()
            names = self._names(connection, {row[2] for row in rows})
        return [StoredEvent(UUID(bytes=bytes_), version, names[topic], value) for bytes_, version, topic, value in rows]


def data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when another connection has committed to the file."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _corrupt(position: int, message: str) -> LogCorrupt:
    error = LogCorrupt(message)
    error.position = position
    return error
