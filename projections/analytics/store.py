"""The analytics database while it is written: DuckDB files, rows and positions in one transaction.

A live file takes the batches. When it is large enough it becomes a part, by a rename, and an empty one goes on: so what
is published later is the live file's content alone, however much there is. DuckDB lets one process open a file for
writing, so there is one writer; everybody else reads snapshots (`snapshots`), which name the parts that they go with.

All of it is disposable: it is made from the log alone, and carries the log's id and the version of what made it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

VERSION = 1  # raise it when the same events would give other rows; a change of schema.sql is noticed by itself
LIVE, NEXT = "live.duckdb", "next.duckdb"
PART_EVENTS = 500_000  # some 150 MB with contents: copied in a second or so, and ten million events are twenty parts
FULL = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EDQUOT))  # DuckDB tells it by these words alone
WAL_BYTES = "256MB"  # copied into the file in one go: small batches would do it over and over


def script(name: str) -> str:
    """The text of one of the SQL files."""
    return (files("session_ledger.projections.analytics") / name).read_text(encoding="utf-8")


def version() -> str:
    """What made the rows: changes with the code and with schema.sql."""
    return hashlib.blake2b(f"{VERSION}\n{script('schema.sql')}".encode(), digest_size=8).hexdigest()


class AnalyticsStore:
    """A generation of the database, open for writing; a sink of the tailing runner. Thread-safe.

    `outdated`: other code made it, and it must be made again.
    """

    def __init__(self, directory: Path, *, log_id: str, ledger: str, part_events: int | None = None) -> None:
        """Open what is in the directory, or begin there. `part_events`: of a part, about; None: PART_EVENTS.

        Raises ProjectionInUse, ProjectionForeign, Misconfigured.
        """
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._part_events = part_events or PART_EVENTS
        self._copying = False
        self._finish_sealing()
        self._db = _connect(directory / LIVE)
        try:
            facts = self._facts()
            if not facts:
                self._begin(self._db, {"log_id": log_id, "ledger": ledger, "version": version(), "parts": "0"})
                facts = self._facts()
            if facts["log_id"] != log_id:
                raise ProjectionForeign(
                    f"{directory} was made from the log {facts['log_id']}, not from {log_id}: delete it, and it is "
                    "made again"
                )
            self.outdated = facts["version"] != version()
            self.parts = int(facts["parts"])
            self._at = self._stored()
            self._live_events = self._db.execute("SELECT count(*) FROM events").fetchall()[0][0]
        except BaseException:
            self._db.close()
            raise

    def _begin(self, db: duckdb.DuckDBPyConnection, facts: Mapping[str, str]) -> None:
        with _room(self.directory):
            db.execute("BEGIN")
            db.execute(script("schema.sql"))
            db.executemany("INSERT INTO facts VALUES (?, ?)", list(facts.items()))
            db.execute("COMMIT")

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

        Raises ProjectionConflict where the batch does not follow what is in, LogCorrupt where it is not dense,
        Misconfigured where the disk is full.
        """
        if not entries:
            return
        first, last = entries[0].position, entries[-1].position
        if last - first + 1 != len(entries):
            raise LogCorrupt(f"positions of a batch of partition {partition} are not dense between {first} and {last}")
        rows = [(entry.position, entry.event) for entry in entries if entry.event is not None]
        batch = table_of(partition, rows) if rows else None
        mark = last, digest(entries[-1].material)
        with self._lock, _room(self.directory):
            db = self._db
            db.execute("BEGIN")
            try:
                position = self._stored().get(partition, (0, b""))[0]
                if position != first - 1:
                    raise ProjectionConflict(
                        f"partition {partition} stands at {position}, so a batch that starts at {first} does not follow"
                    )
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
            self._live_events += len(rows)
            if self._live_events >= self._part_events and not self._copying:
                self.seal()

    # --- parts --------------------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Make what is in the live file a part, which never changes again, and go on with an empty one.

        Nothing is copied. A crash in between leaves either state, or the new file beside; opening finishes that.
        """
        with self._lock:
            if not self._live_events:
                return
            facts = self._facts() | {"parts": str(self.parts + 1)}
            following = self.directory / NEXT
            _delete(following)
            db = _connect(following)
            self._begin(db, facts)
            rows = [(partition, *mark) for partition, mark in self._at.items()]
            db.executemany("INSERT INTO positions VALUES (?, ?, ?)", rows)
            db.close()  # which copies its write-ahead log into the file
            self._db.close()
            live, part = self.directory / LIVE, part_path(self.directory, self.parts + 1)
            if live.with_name(live.name + ".wal").exists():
                raise Misconfigured(f"{live} can not be sealed: something else has it open")
            os.replace(live, part)
            os.replace(following, live)
            self._db = _connect(live)
            self.parts += 1
            self._live_events = 0

    def _finish_sealing(self) -> None:
        """After a crash: the new file takes the old one's place where that has gone, else it is dropped."""
        live, following = self.directory / LIVE, self.directory / NEXT
        if following.exists() and not live.exists():
            os.replace(following, live)
        _delete(following)

    def adopt(self, directories: Iterable[Path]) -> None:
        """Take over all that stands in other directories, of partitions that are not in yet; they are left empty."""
        with self._lock:
            for directory in directories:
                taken = AnalyticsStore(directory, log_id=self._facts()["log_id"], ledger=self._facts()["ledger"])
                taken.seal()
                rows = [(partition, *mark) for partition, mark in taken._at.items()]
                taken.close()
                for number in range(1, taken.parts + 1):
                    self.parts += 1
                    os.replace(part_path(directory, number), part_path(self.directory, self.parts))
                self._db.execute("BEGIN")
                self._db.executemany("INSERT INTO positions VALUES (?, ?, ?)", rows)
                self._db.execute("UPDATE facts SET value = ? WHERE name = 'parts'", (str(self.parts),))
                self._db.execute("COMMIT")
            self._at = self._stored()

    def copy_to(self, path: Path, published_at: str) -> None:
        """Write the live file's content, as it is in one transaction, to a new file: with the parts that is all.

        Raises Misconfigured where the disk is full; the new file is gone then.
        """
        with self._lock:
            cursor = self._db.cursor()  # its own transaction: batches go on meanwhile
            self._copying = True  # and the file stays what it is
        try:
            with _room(path.parent):
                self._copy(cursor, path, published_at)
        except BaseException:
            _delete(path)
            raise
        finally:
            cursor.close()
            self._copying = False

    def _copy(self, cursor: duckdb.DuckDBPyConnection, path: Path, published_at: str) -> None:
        live = cursor.execute("SELECT current_database()").fetchall()[0][0]
        cursor.execute(f"ATTACH {literal(path)} AS snapshot (STORAGE_VERSION 'v1.5.0')")
        try:
            cursor.execute(f'COPY FROM DATABASE "{live}" TO snapshot')
            cursor.execute("INSERT INTO snapshot.facts VALUES ('published_at', ?)", (published_at,))
        finally:
            cursor.execute("DETACH snapshot")

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._db.close()


def part_path(directory: Path, number: int) -> Path:
    """Where a part stands; the first is number 1."""
    return directory / f"part-{number:06}.duckdb"


def _delete(path: Path) -> None:
    for suffix in (".wal", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


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
        if _is_full(str(error)):
            raise _full(path.parent, error) from error
        raise _unusable(path, error) from error
    except duckdb.Error as error:
        raise _unusable(path, error) from error
    path.chmod(0o600)
    return db


@contextmanager
def _room(directory: Path) -> Iterator[None]:
    """Tells a full disk by a typed error that names the directory."""
    try:
        yield
    except duckdb.Error as error:
        if not _is_full(f"{error} {error.__context__}"):  # a transaction that is not open any more follows it
            raise
        raise _full(directory, error) from error


def _is_full(told: str) -> bool:
    return any(words in told for words in FULL)


def _full(directory: Path, error: Exception) -> Misconfigured:
    return Misconfigured(f"the disk that {directory} is on is full ({error}): make room, and run it again")


def _unusable(path: Path, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"{path} can not be opened as an analytics database: {error}; where it is one and damaged, delete it: it is "
        "made again from the log"
    )
