"""Where a ledger's signed checkpoints are kept: the port, and its adapter for a ledger in a directory.

    DIR/checkpoints.db   SQLite; a file of its own, so that the log's single writer is not disturbed

The adapter for Kafka, a topic of the ledger, is `log/kafka_checkpoints`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from session_ledger.domain.errors import LogUnavailable, Misconfigured
from session_ledger.ledger.settings import Settings
from session_ledger.ledger.url import LedgerUrl
from session_ledger.security.files import exist_private

FILE = "checkpoints.db"
BUSY_TIMEOUT_S = 10.0
FORMAT = 1


class Kept(NamedTuple):
    """A signed checkpoint. `note` is kept as it was written, whatever it says."""

    partition: int
    note: str


class CheckpointLog(ABC):
    """Signed checkpoints, appended once and never changed. One process at a time may append."""

    @abstractmethod
    def append(self, kept: Kept) -> None:
        """Make it durable.

        Outcomes: returns, and every reader that starts after this sees it; NotOwner, another checkpointer took the
        place, nothing was written and never will be; LogUnavailable, it may or may not be there: read again.
        """

    @abstractmethod
    def read(self) -> list[Kept]:
        """All of them, in the order in which they were appended. Raises LogUnavailable."""

    @abstractmethod
    def newest(self, partition: int) -> str | None:
        """The note that was appended last for the partition; None where there is none. Raises LogUnavailable."""

    @abstractmethod
    def close(self) -> None:
        """Release what is open. Idempotent."""


class SQLiteCheckpoints(CheckpointLog):
    """A table in a file of its own. Thread-safe. That one process appends is its caller's to see to."""

    def __init__(self, directory: Path, *, write: bool) -> None:
        """Open the file there; `write`: made where it is missing. Raises LogUnavailable, Misconfigured."""
        self._path, self._lock = directory / FILE, RLock()
        self._db: sqlite3.Connection | None = None
        if not write and not self._path.exists():
            return  # nothing is signed yet
        with self._usable("opened"):
            if write:
                exist_private(self._path)
            uri = f"{self._path.absolute().as_uri()}?mode={'rw' if write else 'ro'}"
            self._db = db = sqlite3.connect(
                uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            if write:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS checkpoints"
                    " (number INTEGER PRIMARY KEY, partition INTEGER NOT NULL, note TEXT NOT NULL) STRICT"
                )
                db.execute(f"PRAGMA user_version = {FORMAT}")
            (version,) = db.execute("PRAGMA user_version").fetchone()
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone()
        if made and version != FORMAT:
            raise Misconfigured(f"{self._path} has format {version}, this version reads {FORMAT}: use the one it is of")

    def append(self, kept: Kept) -> None:
        """See the port."""
        with self._usable("written") as db:
            db.execute("INSERT INTO checkpoints (partition, note) VALUES (?, ?)", kept)

    def read(self) -> list[Kept]:
        """See the port."""
        return [Kept(*row) for row in self._rows("SELECT partition, note FROM checkpoints ORDER BY number")]

    def newest(self, partition: int) -> str | None:
        """See the port."""
        query = "SELECT note FROM checkpoints WHERE partition = ? ORDER BY number DESC LIMIT 1"
        return next((note for (note,) in self._rows(query, partition)), None)

    def _rows(self, query: str, *values: object) -> list[Any]:
        if self._db is None:
            return []
        with self._usable("read") as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone() is None:
                return []  # its maker has just begun
            return db.execute(query, values).fetchall()

    def close(self) -> None:
        """See the port."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextlib.contextmanager
    def _usable(self, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db  # type: ignore[misc]  # None only while it is being opened
            except (sqlite3.Error, OSError) as error:
                raise LogUnavailable(
                    f"the checkpoints {self._path} can not be {what}: {error}; where the file is damaged, put it "
                    "aside, and compare with a mirror: `session-ledger verify --log --mirror DIR`"
                ) from error


def open_checkpoints(place: LedgerUrl, settings: Settings, *, write: bool) -> CheckpointLog:
    """A ledger's checkpoints. `write`: as the one that appends.

    Raises Misconfigured (a ledger in memory keeps none), ProjectionInUse (Kafka: another process appends),
    LogUnavailable.
    """
    if place.directory is None:
        raise Misconfigured("a ledger in memory keeps no checkpoints: they prove what outlives the process")
    if place.scheme == "kafka":
        from session_ledger.ledger.log.kafka_checkpoints import KafkaCheckpoints  # likewise only where it is used

        options: dict[str, object] = dict(settings.kafka_client)
        compression = options.pop("compression", None)
        make: Callable[..., CheckpointLog] = KafkaCheckpoints.open
        return make(
            place.bootstrap,
            place.name,
            replication_factor=place.replication_factor,
            write=write,
            compression=compression,
            security=options,
        )
    return SQLiteCheckpoints(place.directory, write=write)
