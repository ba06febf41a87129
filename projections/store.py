"""One SQLite file with the rows of the projections and, in the same transaction, how far each has come.

The file is disposable: it is made from the log alone. It carries the log's id and a fingerprint of the projecting code;
views of another log or of other code are never read or written, they are rebuilt.

One writer at a time, in any process, guarded by position: a batch says where it starts, and one that does not start
where the rows end is rolled back whole (`ProjectionConflict`). Readers use connections of their own and never block
(write-ahead log).
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from session_ledger.domain.errors import (
    LogCorrupt,
    Misconfigured,
    ProjectionConflict,
    ProjectionDamaged,
    ProjectionForeign,
    ProjectionOutdated,
)
from session_ledger.domain.events import Event
from session_ledger.projections.port import Entry, Projection, Quarantined, Receipt
from session_ledger.projections.temporary import temporary_directory
from session_ledger.security.files import exist_private
from session_ledger.security.users import unusable_by_this_user

BUSY_TIMEOUT_S = 30.0  # a rebuild puts its pages in place under the write lock; a big one takes some seconds
ROOT_0 = bytes(32)

_DDL = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE positions (
    projection TEXT NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    count INTEGER NOT NULL,
    root BLOB NOT NULL,
    last BLOB NOT NULL,             -- digest of the record at that position
    PRIMARY KEY (projection, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE quarantine (
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    topic TEXT NOT NULL,
    originator_id BLOB NOT NULL,
    version INTEGER NOT NULL,
    value BLOB NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (partition, position)
) STRICT, WITHOUT ROWID;
"""


class Store:
    """The views' file, open. Thread-safe. `outdated` says that the rows are those of other projecting code."""

    def __init__(
        self, path: str | Path, *, log_id: str, projections: Sequence[Projection], lasting: bool = True
    ) -> None:
        """Open, or make, the file at `path` for the log `log_id`. Not `lasting`: nothing in it outlives the process.

        Raises ProjectionForeign where the file was built from another log, Misconfigured where it is no such file or
        can not be opened.
        """
        self.path = str(path)
        self.log_id = log_id
        self.projections = tuple(projections)
        self.fold_version = _fold_version(self.projections)
        self._lock = threading.RLock()
        self._idle_lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._closed = False
        try:
            exist_private(Path(self.path))
            self._db = self._connect(read_only=False)
            if not lasting:
                self._db.execute("PRAGMA synchronous = OFF")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            what = f"{self.path} can not be opened as a file of views"
            if (why := _not_permitted(error, Path(self.path))) is not None:
                raise Misconfigured(f"{what}: {why}; run it as a user who may, or be given the right") from error
            raise _unusable(error)(
                f"{what}: {error}; where it is one and damaged, rebuild it or delete it: it is made again from the log"
            ) from error

    @classmethod
    def temporary(cls, *, log_id: str, projections: Sequence[Projection], directory: str | None = None) -> Store:
        """A store in a file of its own that is deleted by `close` (in `directory`, or where temporary files go)."""
        place = temporary_directory(directory)
        try:
            store = cls(Path(place.name) / "views.db", log_id=log_id, projections=projections, lasting=False)
        except BaseException:
            place.cleanup()
            raise
        store._directory = place
        return store

    # --- writing ------------------------------------------------------------------------------------------------

    def apply(self, partition: int, entries: Sequence[Entry]) -> None:
        """Fold a batch into every projection and move their positions, in one transaction.

        Raises ProjectionConflict where a projection does not stand at the batch's first position less one (nothing of
        the batch is kept), LogCorrupt where the batch is not dense, ProjectionOutdated.
        """
        if not entries:
            return
        first, last = entries[0].position, entries[-1].position
        if any(entry.position != first + i for i, entry in enumerate(entries)):
            raise LogCorrupt(f"positions of a batch of partition {partition} are not dense between {first} and {last}")
        events = [(entry.position, entry.event) for entry in entries if entry.event is not None]
        with self._transaction() as db:
            self._check_current(db)
            roots: dict[bytes, bytes] = {}
            for projection in self.projections:
                position, count, root = _stored(db, projection.name, partition)
                if position != first - 1:
                    raise ProjectionConflict(
                        f"projection {projection.name}, partition {partition} stands at {position}, "
                        f"so a batch that starts at {first} does not follow; another projector moved it"
                    )
                if root not in roots:
                    roots[root] = chain(root, entries)
                _fold(projection, db, partition, events)
                db.execute(
                    "INSERT INTO positions VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET position ="
                    " excluded.position, count = excluded.count, root = excluded.root, last = excluded.last",
                    (projection.name, partition, last, count + len(events), roots[root], digest(entries[-1].material)),
                )

    def quarantine(self, record: Quarantined) -> None:
        """Note that a record is to be stepped over. It must not have been passed yet. A repeat changes nothing."""
        with self._transaction() as db:
            if self._position(db, record.partition) >= record.position:
                if record in self.quarantined():
                    return
                raise Misconfigured(
                    f"partition {record.partition}, position {record.position} is folded into the views already: "
                    "rebuild, to leave it out"
                )
            db.execute(
                "INSERT INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (
                    record.partition,
                    record.position,
                    record.topic,
                    record.originator_id,
                    record.version,
                    record.value,
                    record.reason,
                ),
            )

    def adopt(self, built: Store) -> None:
        """Put another store's content in place of this one's: readers see all of the old or all of the new.

        SQLite's backup writes it as one transaction through the write-ahead log, so nobody's open file is swapped
        away and a crash leaves the old rows. Quarantined records go with `built`.
        """
        with self._lock, built._lock, self._usable():
            built._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            built._db.backup(self._db)
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # --- reading ------------------------------------------------------------------------------------------------

    @property
    def outdated(self) -> bool:
        """The rows were made by another version of the projecting code (or the file was never filled)."""
        with self._usable():
            return self._meta(self._db, "fold") != self.fold_version

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection with one snapshot of the rows, for one thread. Raises ProjectionOutdated.

        As many connections are open as reads have gone on at the same time.
        """
        db = self._lend()
        try:
            with self._usable():
                db.execute("BEGIN")
                self._check_current(db)
                yield db
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._give_back(db)

    def _lend(self) -> sqlite3.Connection:
        with self._idle_lock:
            if self._closed:
                raise Misconfigured(f"{self.path} is closed")
            if self._idle:
                return self._idle.pop()
        with self._usable():
            return self._connect(read_only=True)

    def _give_back(self, db: sqlite3.Connection) -> None:
        with self._idle_lock:
            if not self._closed:
                self._idle.append(db)
                return
        db.close()

    @property
    def directory(self) -> str:
        """Where the file stands."""
        return str(Path(self.path).absolute().parent)

    def position(self, partition: int) -> int:
        """How far every projection has come in the partition; 0 before the first record."""
        with self._lock, self._usable():
            return self._position(self._db, partition)

    def last(self, partition: int) -> tuple[int, bytes]:
        """(position, digest of the record there) that the partition was folded up to; (0, b"") before the first."""
        with self._lock, self._usable():
            row = self._db.execute(
                "SELECT position, last FROM positions WHERE partition = ? ORDER BY position LIMIT 1", (partition,)
            ).fetchone()
        return (0, b"") if row is None else row

    def receipts(self) -> list[Receipt]:
        """One a projection and partition, ordered."""
        with self._lock, self._usable():
            rows = self._db.execute(
                "SELECT projection, partition, position, count, root FROM positions ORDER BY 1, 2"
            ).fetchall()
        return [Receipt(*row) for row in rows]

    def quarantined(self, partition: int | None = None) -> list[Quarantined]:
        """The records that are stepped over, in order; of one partition, or of all."""
        with self._lock, self._usable():
            rows = self._db.execute(
                "SELECT partition, position, topic, originator_id, version, value, reason FROM quarantine"
                " WHERE ?1 IS NULL OR partition = ?1 ORDER BY 1, 2",
                (partition,),
            ).fetchall()
        return [Quarantined(*row) for row in rows]

    def close(self) -> None:
        """Close every connection; a temporary store is deleted. Idempotent."""
        with self._lock, self._idle_lock:
            if self._closed:
                return
            self._closed = True
            for db in [*self._idle, self._db]:
                db.close()
            self._idle.clear()
            if self._directory is not None:
                self._directory.cleanup()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside -------------------------------------------------------------------------------------------------

    def _connect(self, *, read_only: bool) -> sqlite3.Connection:
        uri = f"{Path(self.path).absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # a power cut may take the last batches, rows and positions alike
        db.execute("PRAGMA wal_autocheckpoint = 8000")  # pages: a page changed by many batches is copied back once
        db.execute("PRAGMA cache_size = -32768")  # KiB: the inner pages of the indexes stay in memory
        return db

    def _prepare(self) -> None:
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
                script = _DDL + "".join(projection.ddl for projection in self.projections)
                for statement in script.split(";\n"):
                    if statement.strip():
                        db.execute(statement)
                db.execute("INSERT INTO meta VALUES ('log_id', ?), ('fold', ?)", (self.log_id, self.fold_version))
            built_from = self._meta(db, "log_id")
        if built_from != self.log_id:
            self._db.close()
            raise ProjectionForeign(
                f"{self.path} was built from the log {built_from}, not from {self.log_id}: "
                "`session-ledger rebuild` deletes it and makes it again from the log"
            )

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """Tells a damaged file and a full disk by a typed error; what it was while it lasted is the cause."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if type(error) not in (sqlite3.DatabaseError, sqlite3.OperationalError):
                raise
            if (why := _not_permitted(error, Path(self.path))) is not None:
                raise Misconfigured(f"the views in {self.path} can not be used: {why}") from error
            raise _unusable(error)(
                f"the views in {self.path} can not be used: {error}; "
                "where the file is damaged, rebuild it or delete it: it is made again from the log"
            ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._usable():
            if self._closed:
                raise Misconfigured(f"{self.path} is closed")
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
                raise ProjectionConflict(f"{self.path} is being written by another process") from error
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _check_current(self, db: sqlite3.Connection) -> None:
        if self._meta(db, "fold") != self.fold_version:
            raise ProjectionOutdated(f"{self.path} was built by another version of the projections: rebuild it")

    def _position(self, db: sqlite3.Connection, partition: int) -> int:
        return min((_stored(db, projection.name, partition)[0] for projection in self.projections), default=0)

    @staticmethod
    def _meta(db: sqlite3.Connection, key: str) -> str | None:
        row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])


def _not_permitted(error: Exception, path: Path) -> str | None:
    """Who may not use the file, where that is what the error comes of."""
    refused = (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    if isinstance(error, PermissionError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in refused:
        return unusable_by_this_user(path)
    return None


def _unusable(error: Exception) -> type[Misconfigured]:
    """ProjectionDamaged for a file that is damaged or none of SQLite's, Misconfigured for a full disk and the like."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    missing = code == sqlite3.SQLITE_ERROR and "no such" in str(error)  # a table or column
    damaged = missing or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return ProjectionDamaged if damaged else Misconfigured


def digest(material: bytes) -> bytes:
    """What tells one record from another at the same position, 16 bytes."""
    return hashlib.blake2b(material, digest_size=16).digest()


def chain(root: bytes, entries: Sequence[Entry]) -> bytes:
    """The receipt's root after these entries."""
    blake2b = hashlib.blake2b
    for entry in entries:
        root = blake2b(root + entry.material, digest_size=32).digest()
    return root


def _fold(projection: Projection, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
    try:
        projection.apply(db, partition, events)
    except sqlite3.IntegrityError as error:  # a second session of that id, a message number that stands already
        raise LogCorrupt(
            f"partition {partition}, between positions {events[0][0]} and {events[-1][0]}: "
            f"projection {projection.name} can not hold both: {error}"
        ) from error


def _stored(db: sqlite3.Connection, projection: str, partition: int) -> tuple[int, int, bytes]:
    row = db.execute(
        "SELECT position, count, root FROM positions WHERE projection = ? AND partition = ?", (projection, partition)
    ).fetchone()
    return (0, 0, ROOT_0) if row is None else row


def _fold_version(projections: Sequence[Projection]) -> str:
    """Names and versions for a person, a digest of the tables for what a person forgets to count up."""
    ddl = hashlib.blake2b((_DDL + "".join(p.ddl for p in projections)).encode(), digest_size=4).hexdigest()
    return " ".join(f"{p.name}:{p.version}" for p in projections) + f" tables:{ddl}"
