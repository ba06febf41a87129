"""The trees of a ledger's partitions in one SQLite file: their nodes, and in one transaction with them how far each is.

Nodes stand in tiles of 256: tile `number` of `level` holds the roots of the full subtrees of 256**level leaves from
256 * number on, side by side. A proof reads one or two tiles a level (three levels to sixteen million leaves), and an
append rewrites the last tile of each level, so what is written a batch does not grow with the tree.

The file is disposable: it is made from the log alone, and carries the log's id. One writer at a time; readers see one
state of it for as long as they read.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import RLock

from session_ledger.domain.errors import LogCorrupt, Misconfigured, ProjectionConflict, ProjectionForeign
from session_ledger.projections.port import Entry
from session_ledger.security.files import exist_private
from session_ledger.security.merkle import (
    HASH_BYTES,
    consistency_proof,
    fold,
    inclusion_proof,
    root_at,
)

FORMAT = "1"
BUSY_TIMEOUT_S = 10.0
TILE_LEVELS = 8
TILE = 1 << TILE_LEVELS  # nodes
_DDL = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS trees (partition INTEGER PRIMARY KEY, size INTEGER NOT NULL, last BLOB NOT NULL)"
    " STRICT",
    "CREATE TABLE IF NOT EXISTS tiles (partition INTEGER NOT NULL, level INTEGER NOT NULL, number INTEGER NOT NULL,"
    " hashes BLOB NOT NULL, PRIMARY KEY (partition, level, number)) STRICT",
)
REMEDY = "delete the file: it is made again from the log"


class Tree:
    """One partition's tree as it was when reading began."""

    def __init__(self, db: sqlite3.Connection, partition: int, path: str) -> None:
        self._db, self._partition, self._path = db, partition, path
        self._tiles: dict[tuple[int, int], bytes] = {}
        row = db.execute("SELECT size FROM trees WHERE partition = ?", (partition,)).fetchone()
        self.size: int = 0 if row is None else row[0]
        """How many leaves it has: the position of the last record in it."""

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves; None: of all. Raises LogCorrupt where it has not so many."""
        wanted = self.size if size is None else size
        self._assert_has(wanted)
        return root_at(wanted, self.node)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """The proof of leaf `index` in the tree of `size` leaves."""
        self._assert_has(size)
        return inclusion_proof(index, size, self.node)

    def consistency(self, first: int, second: int) -> list[bytes]:
        """The proof from the tree of `first` leaves to that of `second`."""
        self._assert_has(second)
        return consistency_proof(first, second, self.node)

    def leaf(self, index: int) -> bytes:
        """The hash of a leaf."""
        return self.node(0, index)

    def node(self, level: int, number: int) -> bytes:
        """The root of a full subtree; see `security.merkle.Nodes`."""
        tile_level, above = divmod(level, TILE_LEVELS)
        tile, first = divmod(number << above, TILE)
        hashes = self._tile(tile_level, tile)[first * HASH_BYTES : (first + (1 << above)) * HASH_BYTES]
        if len(hashes) != HASH_BYTES << above:
            raise Misconfigured(f"{self._path} lacks nodes of partition {self._partition}: {REMEDY}")
        return fold([hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)])

    def _tile(self, level: int, number: int) -> bytes:
        found = self._tiles.get((level, number))
        if found is None:
            found = self._tiles[level, number] = _tile(self._db, self._partition, level, number)
        return found

    def _assert_has(self, size: int) -> None:
        if size > self.size:
            raise LogCorrupt(f"the tree of partition {self._partition} has {self.size} leaves, not {size}")


class Trees:
    """The file, open. Thread-safe. A sink of the tail: an entry's material is the hash of its leaf."""

    def __init__(self, path: str | Path, *, log_id: str, readonly: bool = False) -> None:
        """Open, or unless `readonly` make, the file at `path` for the log `log_id`.

        Raises ProjectionForeign where it is of another log, Misconfigured where it is no such file or not there.
        """
        self.path = str(path)
        self._lock = RLock()
        self._db: sqlite3.Connection | None = None
        with self._usable():
            if not readonly:
                exist_private(Path(self.path))
            uri = f"{Path(self.path).absolute().as_uri()}?mode={'ro' if readonly else 'rw'}"
            self._db = sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            if not readonly:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut takes the last batches whole
                self._make(log_id)
            found = dict(self._db.execute("SELECT key, value FROM meta").fetchall())
        if found != {"log_id": log_id, "format": FORMAT}:
            self.close()
            raise ProjectionForeign(f"{self.path} was made from another log, or by another version: {REMEDY}")

    def _make(self, log_id: str) -> None:
        with self._transaction() as db:
            for statement in _DDL:
                db.execute(statement)
            if db.execute("SELECT 1 FROM meta").fetchone() is None:
                db.execute("INSERT INTO meta VALUES ('log_id', ?), ('format', ?)", (log_id, FORMAT))

    # --- the tail's sink --------------------------------------------------------------------------------------------

    def position(self, partition: int) -> int:
        """How many leaves the partition's tree has: the position of the last record in it."""
        return self.last(partition)[0]

    def last(self, partition: int) -> tuple[int, bytes]:
        """That position, and the hash of the leaf there; (0, b"") for an empty tree."""
        with self._usable() as db:
            row = db.execute("SELECT size, last FROM trees WHERE partition = ?", (partition,)).fetchone()
        return (0, b"") if row is None else row

    def apply(self, partition: int, entries: Sequence[Entry]) -> None:
        """Add leaves, with every node that they complete, in one transaction.

        Raises ProjectionConflict where the tree does not end right before the first of them, LogCorrupt where they
        are not dense.
        """
        if not entries:
            return
        first, last = entries[0].position, entries[-1]
        if [entry.position for entry in entries] != list(range(first, first + len(entries))):
            raise LogCorrupt(f"positions of a batch of partition {partition} are not dense after {first}")
        with self._transaction() as db:
            row = db.execute("SELECT size FROM trees WHERE partition = ?", (partition,)).fetchone()
            size = 0 if row is None else row[0]
            if size != first - 1:
                raise ProjectionConflict(
                    f"the tree of partition {partition} has {size} leaves, so a batch that starts at {first} does not "
                    "follow; another checkpointer moved it"
                )
            _add(db, partition, size, [entry.material for entry in entries])
            db.execute("INSERT OR REPLACE INTO trees VALUES (?, ?, ?)", (partition, last.position, last.material))

    # --- reading ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def reading(self, partition: int) -> Iterator[Tree]:
        """The partition's tree, in one state for as long as the block runs."""
        with self._usable() as db:
            db.execute("BEGIN")
            try:
                yield Tree(db, partition, self.path)
            finally:
                db.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    # --- inside -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _usable(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db  # type: ignore[misc]  # None only while it is being opened
            except (sqlite3.Error, OSError) as error:
                raise Misconfigured(
                    f"the trees in {self.path} can not be used: {error}; where the file is damaged, {REMEDY}; where it "
                    "is not there, `session-ledger checkpoint` makes it"
                ) from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._usable() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


def _tile(db: sqlite3.Connection, partition: int, level: int, number: int) -> bytes:
    row = db.execute(
        "SELECT hashes FROM tiles WHERE partition = ? AND level = ? AND number = ?", (partition, level, number)
    ).fetchone()
    return b"" if row is None else row[0]


def _add(db: sqlite3.Connection, partition: int, size: int, hashes: Sequence[bytes]) -> None:
    """Write the leaves' tiles, then those of the nodes that full tiles make, level by level."""
    level = 0
    while hashes:
        number, filled = divmod(size, TILE)
        tail = _tile(db, partition, level, number)
        if len(tail) != filled * HASH_BYTES:
            raise Misconfigured(f"level {level} of partition {partition} does not hold {size} nodes: {REMEDY}")
        flat = [tail[at : at + HASH_BYTES] for at in range(0, len(tail), HASH_BYTES)]
        flat += hashes
        tiles = [flat[at : at + TILE] for at in range(0, len(flat), TILE)]
        db.executemany(
            "INSERT OR REPLACE INTO tiles VALUES (?, ?, ?, ?)",
            [(partition, level, number + at, b"".join(tile)) for at, tile in enumerate(tiles)],
        )
        hashes = [fold(tile) for tile in tiles if len(tile) == TILE]
        size >>= TILE_LEVELS
        level += 1
