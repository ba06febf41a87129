"""The one connection of a process that writes a log file: appends checked by epoch, and doubtful commits settled."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from session_ledger.domain.errors import AppendFailed, LedgerClosed, LogUnavailable, NotOwner, OutcomeUnknown
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log.port import Record
from session_ledger.ledger.log.recorder import VersionConflict, check_batch
from session_ledger.ledger.log.sqlite_errors import as_log_error, describe, nothing_was_written
from session_ledger.ledger.log.sqlite_lock import OwnerLock
from session_ledger.ledger.log.sqlite_readers import connect
from session_ledger.ledger.log.sqlite_schema import batches_table, events_table
from session_ledger.ledger.log.sqlite_wake import CommitSignal

ROWS_A_STATEMENT = 64  # a power of two; longer statements gain nothing, and each step yields the interpreter lock
COLUMNS = 5


class PartitionSQL:
    """The statements of one partition, spelled out once."""

    def __init__(self, partition: int) -> None:
        events, batches = events_table(partition), batches_table(partition)
        self.state = f"SELECT epoch, (SELECT max(position) FROM {events}) FROM owner"
        self.insert_batch = f"INSERT INTO {batches} VALUES (?, ?, ?)"
        self.batch_at = f"SELECT batch_id FROM {batches} WHERE first_position = ?"
        row = f"({', '.join('?' * COLUMNS)})"
        self.insert_rows = {
            rows: f"INSERT INTO {events} VALUES {', '.join([row] * rows)}"
            for rows in (1 << power for power in range(ROWS_A_STATEMENT.bit_length()))
        }


class Writer:
    """Owns the log under `epoch`. Thread-safe: appends to different partitions take turns.

    Once another epoch is seen, or after `close`, nothing is ever written again.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, epoch: int, lock: OwnerLock, signal: CommitSignal
    ) -> None:
        """`connection` becomes the writer's own; the lock may still be on its way."""
        self._path, self._epoch, self._lock_file, self._signal = path, epoch, lock, signal
        self._pid = os.getpid()
        self._guard = Lock()
        self._connection: sqlite3.Connection | None = connection
        self._lost: str | None = None
        self._closed = False
        self._topics = load_topics(connection)

    def append(self, sql: PartitionSQL, records: Sequence[Record]) -> None:
        """See the port. Errors before COMMIT, and a full disk in it, leave nothing; any other is settled at once."""
        with self._guard:
            self._assert_usable()
            connection = self._connected(AppendFailed)
            try:
                connection.execute("BEGIN IMMEDIATE")
                new_topics = self._insert(connection, sql, records)
            except sqlite3.Error as error:
                self._roll_back()
                raise self._refused(error, records) from error
            except BaseException:
                self._roll_back()
                raise
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                if nothing_was_written(error):
                    raise self._refused(error, records) from error
                self._resolve(sql, records[0], error)
            except BaseException:  # an interrupt; whether it was committed is asked by `settle`
                self._roll_back()
                raise
            else:
                self._topics.update(new_topics)
        self._signal.announce()

    def _insert(self, connection: sqlite3.Connection, sql: PartitionSQL, records: Sequence[Record]) -> dict[str, int]:
        """Everything between BEGIN and COMMIT; returns the topics that are new."""
        epoch, end = connection.execute(sql.state).fetchone()
        self._assert_epoch(epoch, connection)
        check_batch(records, end or 0)
        new_topics = self._insert_topics(connection, records)
        topics = {**self._topics, **new_topics} if new_topics else self._topics
        connection.execute(sql.insert_batch, (records[0].position, len(records), records[0].batch_id))
        done, rows = 0, ROWS_A_STATEMENT
        while done < len(records):
            while rows > len(records) - done:
                rows >>= 1
            values: list[int | bytes] = []
            for position, _, originator_id, version, topic, value, _ in records[done : done + rows]:
                values += (position, originator_id, version, topics[topic], value)
            connection.execute(sql.insert_rows[rows], values)
            done += rows
        return new_topics

    def _insert_topics(self, connection: sqlite3.Connection, records: Sequence[Record]) -> dict[str, int]:
        unknown = {record.topic for record in records} - self._topics.keys()
        numbered = {name: len(self._topics) + i for i, name in enumerate(sorted(unknown), 1)}
        if numbered:
            connection.executemany("INSERT INTO topics (name, id) VALUES (?, ?)", numbered.items())
        return numbered

    def _refused(self, error: sqlite3.Error, records: Sequence[Record]) -> AppendFailed:
        if isinstance(error, sqlite3.IntegrityError):
            first = records[0]
            return VersionConflict(
                f"a version in the append of {len(records)} from {format_id(first.originator_id)} version "
                f"{first.version} on stands in the log already: {error}"
            )
        return AppendFailed(f"appending to {self._path}: {describe(error)}; nothing was written")

    # --- outcomes that COMMIT leaves open -------------------------------------------------------------------------

    def _resolve(self, sql: PartitionSQL, first: Record, error: sqlite3.Error) -> None:
        """After a COMMIT that failed: return if the batch stands, else raise AppendFailed or OutcomeUnknown."""
        try:
            stands = self._settle(sql, first.batch_id, first.position)
        except LogUnavailable as again:
            raise OutcomeUnknown(f"committing to {self._path}: {describe(error)}; then {again}") from error
        if not stands:
            raise AppendFailed(f"committing to {self._path}: {describe(error)}; nothing was written") from error

    def settle(self, sql: PartitionSQL, batch_id: bytes, first_position: int) -> bool:
        """See the port."""
        with self._guard:
            self._assert_usable()
            return self._settle(sql, batch_id, first_position)

    def _settle(self, sql: PartitionSQL, batch_id: bytes, first_position: int) -> bool:
        """Look for the batch, and make the answer last.

        A COMMIT whose sync failed may have left whole frames at the WAL's tail, unseen until the file is recovered.
        A commit of our own overwrites them, so "not there" stays true. And what is there may not be on the disk:
        a checkpoint writes and syncs it once more, into the database file.
        """
        connection = self._connected(LogUnavailable)
        try:
            connection.execute("BEGIN IMMEDIATE")
            self._assert_epoch(connection.execute("SELECT epoch FROM owner").fetchone()[0], connection)
            found = connection.execute(sql.batch_at, (first_position,)).fetchone()
            connection.execute("UPDATE owner SET settled = settled + 1")
            connection.execute("COMMIT")
            self._topics = load_topics(connection)
            stands = found is not None and found[0] == batch_id
            if stands:
                busy, frames, written = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
                if busy or frames != written:
                    raise LogUnavailable(f"{self._path}: a reader holds up the checkpoint that would prove the append")
            return stands
        except sqlite3.Error as error:
            self._roll_back()
            raise LogUnavailable(f"settling an append to {self._path}: {describe(error)}") from error
        except BaseException:
            self._roll_back()
            raise

    # --- ownership ------------------------------------------------------------------------------------------------

    def assert_owner(self, connection: sqlite3.Connection) -> None:
        """Raise NotOwner unless the database, read now through that connection, names this writer's epoch."""
        self._assert_usable()
        self._assert_epoch(connection.execute("SELECT epoch FROM owner").fetchone()[0], connection)

    def _assert_epoch(self, epoch: int, connection: sqlite3.Connection) -> None:
        if epoch != self._epoch:
            holder = connection.execute("SELECT holder FROM owner").fetchone()[0]
            self._lost = f"{self._path} was taken over by {holder}; this process writes to it no more"
            self._lock_file.release()
            raise NotOwner(self._lost)

    def _assert_usable(self) -> None:
        if os.getpid() != self._pid:
            raise NotOwner(f"{self._path} is owned by process {self._pid}, which forked this one; send commands to it")
        if self._closed:
            raise LedgerClosed(f"the log {self._path} is closed")
        if self._lost is not None:
            raise NotOwner(self._lost)

    # --- the connection -------------------------------------------------------------------------------------------

    def _connected(self, failure: type[AppendFailed] | type[LogUnavailable]) -> sqlite3.Connection:
        """The connection, made again if an error cost it."""
        if self._connection is None:
            try:
                self._connection = open_for_writing(self._path)
                self._topics = load_topics(self._connection)
            except sqlite3.Error as error:
                raise failure(str(as_log_error(error, "opening", self._path))) from error
        return self._connection

    def _roll_back(self) -> None:
        """End the transaction, if need be with its connection."""
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()  # rolls back too: the WAL has no commit of it
            self._connection = None

    def close(self) -> None:
        """Let the connection and the lock go, after the append that runs. Idempotent."""
        with self._guard:
            self._closed = True
            if self._connection is not None and os.getpid() == self._pid:
                self._connection.close()
                self._connection = None
            self._lock_file.release()


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return. Raises sqlite3.Error."""
    connection = connect(path, write=True)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA journal_size_limit=16777216")  # bytes of WAL that stay after a checkpoint
    return connection


def load_topics(connection: sqlite3.Connection) -> dict[str, int]:
    """Topic name -> number."""
    return dict(connection.execute("SELECT name, id FROM topics").fetchall())
