"""The analytics database while it is written: one DuckDB file, rows and positions in one transaction.

DuckDB lets one process open a file for writing, so there is one writer; everybody else reads snapshots (`snapshots`).
The file is disposable: it is made from the log alone, and carries the log's id and the version of what made it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path

import duckdb

from session_ledger.domain.errors import (
    LogCorrupt,
    Misconfigured,
    ProjectionConflict,
    ProjectionForeign,
    ProjectionInUse,
)
from session_ledger.projections.analytics.columns import table_of
from session_ledger.projections.port import Entry
from session_ledger.projections.store import digest

VERSION = 1  # raise it when the same events would give other rows; a change of the SQL files is noticed by itself
SCRIPTS = ("schema.sql", "views.sql")
WAL_BYTES = "256MB"  # copied into the file in one go: small batches would do it over and over


def script(name: str) -> str:
    """The text of one of the SQL files."""
    return (files("session_ledger.projections.analytics") / name).read_text(encoding="utf-8")


def version() -> str:
    """What made the rows and views: changes with the code and with the SQL files."""
    texts = "\n".join([str(VERSION), *map(script, SCRIPTS)])
    return hashlib.blake2b(texts.encode(), digest_size=8).hexdigest()


class AnalyticsStore:
    """The file, open for writing; a sink of the tailing runner. Thread-safe. `outdated`: other code made it."""

    def __init__(self, path: Path, *, log_id: str, ledger: str) -> None:
        """Open the file, or make it. Raises ProjectionInUse, ProjectionForeign, Misconfigured."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._db = _connect(path)
        try:
            facts = self._facts()
            if not facts:
                self._make({"log_id": log_id, "ledger": ledger, "version": version()})
            elif facts.get("log_id") != log_id:
                raise ProjectionForeign(
                    f"{path} was made from the log {facts.get('log_id')}, not from {log_id}: delete it, and it is made "
                    "again"
                )
            self.outdated = bool(facts) and facts.get("version") != version()
            self._at = self._stored()
        except BaseException:
            self._db.close()
            raise

    def _make(self, facts: dict[str, str]) -> None:
        self._db.execute("BEGIN")
        for name in SCRIPTS:
            self._db.execute(script(name))
        self._db.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
        self._db.execute("COMMIT")

    def _facts(self) -> dict[str, str]:
        if not self._db.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = 'facts'").fetchone():
            return {}
        return dict(self._db.execute("SELECT name, value FROM facts").fetchall())

    def _stored(self) -> dict[int, tuple[int, bytes]]:
        rows = self._db.execute("SELECT partition, position, last FROM positions").fetchall()
        return {partition: (position, last) for partition, position, last in rows}

    # --- the sink -----------------------------------------------------------------------------------------------------

    def position(self, partition: int) -> int:
        """The position of the last record that is in; 0 for none."""
        return self._at.get(partition, (0, b""))[0]

    def positions(self) -> dict[int, int]:
        """Partition to that position, of those that have any."""
        return {partition: position for partition, (position, _) in sorted(self._at.items())}

    def last(self, partition: int) -> tuple[int, bytes]:
        """That position and the digest of the record there."""
        return self._at.get(partition, (0, b""))

    def apply(self, partition: int, entries: Sequence[Entry]) -> None:
        """Add a batch's rows and move the position, in one transaction.

        Raises ProjectionConflict where the batch does not follow what is in, LogCorrupt where it is not dense.
        """
        if not entries:
            return
        first, last = entries[0].position, entries[-1].position
        if last - first + 1 != len(entries):
            raise LogCorrupt(f"positions of a batch of partition {partition} are not dense between {first} and {last}")
        rows = [(entry.position, entry.event) for entry in entries if entry.event is not None]
        batch = table_of(partition, rows) if rows else None
        mark = last, digest(entries[-1].material)
        with self._lock:
            position = self.position(partition)
            if position != first - 1:
                raise ProjectionConflict(
                    f"partition {partition} stands at {position}, so a batch that starts at {first} does not follow"
                )
            db = self._db
            db.execute("BEGIN")
            try:
                if batch is not None:
                    db.register("batch", batch)
                    db.execute("INSERT INTO events BY NAME SELECT * FROM batch")
                db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (partition, *mark))
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
            finally:
                if batch is not None:
                    db.unregister("batch")
            self._at[partition] = mark

    def adopt(self, parts: Iterable[Path]) -> None:
        """Take over the rows and positions of other files, of partitions that are not in yet, in one transaction."""
        with self._lock:
            self._db.execute("SET preserve_insertion_order = false")
            for number, part in enumerate(parts):
                name = f"part_{number}"
                self._db.execute(f"ATTACH {literal(part)} AS {name} (READ_ONLY)")
                self._db.execute("BEGIN")
                try:
                    self._db.execute(f"INSERT INTO events SELECT * FROM {name}.events")
                    self._db.execute(f"INSERT INTO positions SELECT * FROM {name}.positions")
                    self._db.execute("COMMIT")
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute(f"DETACH {name}")
            self._at = self._stored()

    def copy_to(self, path: Path, published_at: str) -> None:
        """Write all of it, as it is in one transaction, to a new file that clients of DuckDB 1.5 and later open."""
        cursor = self._db.cursor()  # its own transaction: batches go on meanwhile
        try:
            live = cursor.execute("SELECT current_database()").fetchall()[0][0]
            cursor.execute(f"ATTACH {literal(path)} AS snapshot (STORAGE_VERSION 'v1.5.0')")
            try:
                cursor.execute(f'COPY FROM DATABASE "{live}" TO snapshot')
                cursor.execute("INSERT INTO snapshot.facts VALUES ('published_at', ?)", (published_at,))
            finally:
                cursor.execute("DETACH snapshot")
        finally:
            cursor.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._db.close()


def literal(path: Path) -> str:
    """The path as a text in SQL: statements that attach take no parameters."""
    return "'" + str(path).replace("'", "''") + "'"


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        db = duckdb.connect(str(path), config={"wal_autocheckpoint": WAL_BYTES})
        db.execute("SET TimeZone = 'UTC'")
    except duckdb.IOException as error:
        if "lock" in str(error).lower():
            raise ProjectionInUse(
                f"{path} is being written by another process, and one is enough: let it, or stop it first ({error})"
            ) from error
        raise _unusable(path, error) from error
    except duckdb.Error as error:
        raise _unusable(path, error) from error
    path.chmod(0o600)
    return db


def _unusable(path: Path, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"{path} can not be opened as an analytics database: {error}; where it is one and damaged, delete it: it is "
        "made again from the log"
    )
