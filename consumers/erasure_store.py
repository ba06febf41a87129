"""What was erased, and how far each erasure is: one SQLite file that is made from the log, but for what was done.

It is the eraser's own: a sink of the tail, so an erasure is noted exactly once, with the position up to which the log
was read in the same transaction. What was opened for somebody before an erasure is noted too, because no erasure
reaches it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from session_ledger.domain.errors import LogUnavailable, Misconfigured, ProjectionConflict, ProjectionForeign
from session_ledger.domain.events import ContentErased, ContentRevealed, TenantErased
from session_ledger.projections.port import Entry
from session_ledger.projections.store import digest
from session_ledger.security.files import create_private

FILE = "erasures.db"
BUSY_TIMEOUT_S = 10.0
_DDL = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
    partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, last BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS erasures (
    event_id BLOB NOT NULL UNIQUE,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,             -- '': of the whole tenant
    session_id BLOB,
    key_id BLOB,                    -- of a user: the account's key that stays
    requested_by TEXT NOT NULL,
    reason TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    keys INTEGER,                   -- in the vault, before they were destroyed
    destroyed_at INTEGER,           -- microseconds since the epoch; NULL: not yet
    completed_at INTEGER,
    receipt TEXT,                   -- the signed note
    PRIMARY KEY (partition, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS confirmations (
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    store TEXT NOT NULL,
    detail TEXT NOT NULL,
    confirmed_at INTEGER NOT NULL,
    PRIMARY KEY (partition, position, store)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reveals (
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    session_id BLOB,
    revealed_by TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    fields INTEGER NOT NULL,
    PRIMARY KEY (partition, position)
) STRICT, WITHOUT ROWID;
"""
_NOTED = "event_id, partition, position, tenant, user, session_id, key_id, requested_by, reason, recorded_at"
_COLUMNS = f"{_NOTED}, keys, destroyed_at, completed_at, receipt"


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure that the log has, and how far it is. Times in microseconds since the epoch."""

    event_id: bytes
    partition: int
    position: int
    tenant: str
    user: str
    """"": the whole tenant's."""
    session_id: bytes | None
    key_id: bytes | None
    requested_by: str
    reason: str
    recorded_at: int
    keys: int | None
    """Data keys that the vault held of it, noted before they are destroyed; None: not yet."""
    destroyed_at: int | None
    completed_at: int | None
    receipt: str | None


@dataclass(frozen=True, slots=True)
class Reveal:
    """Content that was opened for somebody."""

    partition: int
    position: int
    session_id: bytes | None
    revealed_by: str
    recorded_at: int
    fields: int


class ErasureStore:
    """The file, open. Thread-safe. A sink of `Tail`."""

    def __init__(self, path: Path, log_id: str) -> None:
        """Open or make it. Raises ProjectionForeign (of another log), Misconfigured."""
        self.path = path
        self._lock = threading.RLock()
        try:
            if not path.exists():
                with suppress(FileExistsError):  # another process made it meanwhile
                    create_private(path, b"")
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.executescript(_DDL)
            self._db.execute("INSERT INTO meta VALUES ('log_id', ?) ON CONFLICT DO NOTHING", (log_id,))
            (found,) = self._db.execute("SELECT value FROM meta WHERE key = 'log_id'").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise Misconfigured(f"the record of erasures {path} can not be opened: {error}") from error
        if found != log_id:
            self._db.close()
            raise ProjectionForeign(f"{path} belongs to the log {found}, not to {log_id}")

    def close(self) -> None:
        """Close it. Idempotent."""
        with self._lock:
            self._db.close()

    # --- the sink -------------------------------------------------------------------------------------------------

    def position(self, partition: int) -> int:
        """The position of the last record that was looked at."""
        return self.last(partition)[0]

    def last(self, partition: int) -> tuple[int, bytes]:
        """That position and the digest of the record there."""
        rows = self._rows("SELECT position, last FROM positions WHERE partition = ?", (partition,))
        return (rows[0][0], rows[0][1]) if rows else (0, b"")

    def apply(self, partition: int, entries: Sequence[Entry]) -> None:
        """Note what of a batch concerns erasures, and move the position."""
        if not entries:
            return
        first, last = entries[0].position, entries[-1].position
        with self._transaction() as db:
            if self.position(partition) != first - 1:
                raise ProjectionConflict(f"the record of erasures moved on before position {first}")
            for position, event, _ in entries:
                if isinstance(event, ContentErased | TenantErased):
                    session_id = event.session_id if isinstance(event, ContentErased) else None
                    key_id = event.key_id if isinstance(event, ContentErased) else None
                    whose = (event.tenant, event.user, session_id, key_id)
                    told = (event.requested_by, event.reason, event.recorded_at)
                    db.execute(
                        f"INSERT INTO erasures ({_NOTED}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        (event.event_id, partition, position, *whose, *told),
                    )
                elif isinstance(event, ContentRevealed):
                    shown = (event.session_id, event.revealed_by, event.recorded_at, event.fields)
                    db.execute(
                        "INSERT INTO reveals VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (partition, position, event.tenant, event.user, *shown),
                    )
            db.execute("REPLACE INTO positions VALUES (?, ?, ?)", (partition, last, digest(entries[-1].material)))

    # --- erasures -------------------------------------------------------------------------------------------------

    def erasures(self, *, unfinished: bool = False) -> list[Erasure]:
        """All, or those that are not complete, in the order of the log's partitions."""
        where = " WHERE completed_at IS NULL" if unfinished else ""
        rows = self._rows(f"SELECT {_COLUMNS} FROM erasures{where} ORDER BY recorded_at, partition, position")
        return [Erasure(*row) for row in rows]

    def erasure(self, event_id: bytes) -> Erasure | None:
        """The one that the event of that id records."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM erasures WHERE event_id = ?", (event_id,))
        return Erasure(*rows[0]) if rows else None

    def at(self, partition: int, position: int) -> Erasure | None:
        """The one that is recorded there."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM erasures WHERE partition = ? AND position = ?", (partition, position)
        )
        return Erasure(*rows[0]) if rows else None

    def of_tenant(self, tenant: str) -> Erasure | None:
        """The erasure of the whole tenant, if there is one."""
        rows = self._rows(
            f"SELECT {_COLUMNS} FROM erasures WHERE tenant = ? AND user = '' AND partition < 0", (tenant,)
        )
        return Erasure(*rows[0]) if rows else None

    def empty(self) -> bool:
        """True: nothing was erased, as far as the log was followed."""
        return not self._rows("SELECT 1 FROM erasures LIMIT 1")

    def signed(self) -> bool:
        """Whether any receipt was signed."""
        return bool(self._rows("SELECT 1 FROM erasures WHERE receipt IS NOT NULL LIMIT 1"))

    def found(self, erasure: Erasure, keys: int) -> None:
        """So many keys of it are in the vault, and are destroyed next; what was noted before stays."""
        self._write(
            "UPDATE erasures SET keys = coalesce(keys, ?) WHERE partition = ? AND position = ?",
            (keys, erasure.partition, erasure.position),
        )

    def destroyed(self, erasure: Erasure, now: int) -> None:
        """Its keys are destroyed, physically. A repeat changes nothing."""
        self._write(
            "UPDATE erasures SET destroyed_at = coalesce(destroyed_at, ?) WHERE partition = ? AND position = ?",
            (now, erasure.partition, erasure.position),
        )

    def confirm(self, erasure: Erasure, store: str, detail: str, now: int) -> None:
        """A store has acted on it. A repeat changes nothing."""
        self._write(
            "INSERT INTO confirmations VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (erasure.partition, erasure.position, store, detail, now),
        )

    def confirmations(self, erasure: Erasure) -> dict[str, tuple[str, int]]:
        """Store to (detail, when it was confirmed)."""
        rows = self._rows(
            "SELECT store, detail, confirmed_at FROM confirmations WHERE partition = ? AND position = ? ORDER BY 1",
            (erasure.partition, erasure.position),
        )
        return {store: (detail, at) for store, detail, at in rows}

    def completed(self, erasure: Erasure, receipt: str, now: int) -> None:
        """It is complete. A receipt that was written before stays."""
        self._write(
            "UPDATE erasures SET completed_at = ?, receipt = ?"
            " WHERE partition = ? AND position = ? AND receipt IS NULL",
            (now, receipt, erasure.partition, erasure.position),
        )

    def reveals(self, erasure: Erasure) -> list[Reveal]:
        """What had been opened before the keys were destroyed, of what it erased."""
        query = "SELECT partition, position, session_id, revealed_by, recorded_at, fields FROM reveals WHERE tenant = ?"
        values: list[object] = [erasure.tenant]
        if erasure.user:
            query += " AND user = ? AND partition = ? AND (position < ? OR recorded_at <= ?)"
            values += [erasure.user, erasure.partition, erasure.position, erasure.destroyed_at or 0]
        if erasure.session_id is not None:
            query += " AND session_id = ?"
            values.append(erasure.session_id)
        return [Reveal(*row) for row in self._rows(f"{query} ORDER BY partition, position", values)]

    # --- inside ---------------------------------------------------------------------------------------------------

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        with self._lock, self._usable():
            return self._db.execute(query, values).fetchall()

    def _write(self, statement: str, values: Sequence[object]) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._usable():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LogUnavailable(f"the record of erasures {self.path} can not be used: {error}") from error
