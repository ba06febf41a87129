"""The SQLite log's tables, the version of their format, and the identity that `meta` keeps.

Disk is a figure, so rows are lean: topics are numbers, a batch id stands once an append, the routing key is not
stored (every value repeats it), and the only index is the unique one on (originator id, version).
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from session_ledger.domain.errors import LogCorrupt, LogTooNew, Misconfigured

FORMAT = 1  # raise it with every change that an older version of the ledger would misread
CONTROL = -1  # the partition number of the control log

# What every format has: a version that does not know the rest still reads its number.
_META = "CREATE TABLE meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"
_TABLES = (
    "CREATE TABLE owner (one INTEGER PRIMARY KEY CHECK (one = 1), epoch INTEGER NOT NULL, holder TEXT NOT NULL,"
    " settled INTEGER NOT NULL)",
    "INSERT INTO owner VALUES (1, 0, 'nobody', 0)",
    "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
)
_PARTITION_TABLES = (
    "CREATE TABLE {events} (position INTEGER PRIMARY KEY, originator_id BLOB NOT NULL, version INTEGER NOT NULL,"
    " topic INTEGER NOT NULL, value BLOB NOT NULL)",
    "CREATE UNIQUE INDEX {events}_by_version ON {events} (originator_id, version)",
    "CREATE TABLE {batches} (first_position INTEGER PRIMARY KEY, count INTEGER NOT NULL, batch_id BLOB NOT NULL)",
)


def events_table(partition: int) -> str:
    """The name of a partition's table of events."""
    return "control_events" if partition == CONTROL else "events"


def batches_table(partition: int) -> str:
    """The name of a partition's table of appends."""
    return "control_batches" if partition == CONTROL else "batches"


@dataclass(frozen=True, slots=True)
class Meta:
    """What a log says about itself; written once, when it is created."""

    format: int
    name: str
    log_id: str
    created_us: int


def create_tables(connection: sqlite3.Connection, name: str) -> None:
    """Make every table and `meta`, inside the caller's transaction."""
    if not name:
        raise Misconfigured("a ledger's name must not be empty")
    connection.execute(_META)
    for statement in _TABLES:
        connection.execute(statement)
    for partition in (0, CONTROL):
        for statement in _PARTITION_TABLES:
            connection.execute(statement.format(events=events_table(partition), batches=batches_table(partition)))
    meta = {"format": FORMAT, "name": name, "log_id": str(uuid4()), "created_us": time.time_ns() // 1000}
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())


def read_meta(connection: sqlite3.Connection, path: Path) -> Meta | None:
    """What the log says about itself; None where the file is empty, so no log was created there.

    A rollback journal that was left behind is of a creation that was cut off before the file went over to WAL mode:
    the next owner rolls it back. Raises LogTooNew for the format of a newer version, LogCorrupt for a file that is no
    log, sqlite3.Error.
    """
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
            return None
        raise
    if not tables:
        return None
    if "meta" not in tables:
        raise LogCorrupt(f"{path} is a SQLite database but not the log of a ledger")
    found = dict(connection.execute("SELECT name, value FROM meta").fetchall())
    try:
        version = int(found["format"])
        if version > FORMAT:
            raise LogTooNew(
                f"{path} has format {version}, and this version of the ledger reads up to {FORMAT}; "
                "upgrade session-ledger (nothing was changed)"
            )
        return Meta(version, str(found["name"]), str(found["log_id"]), int(found["created_us"]))
    except (KeyError, ValueError) as error:
        raise LogCorrupt(f"{path}: its meta table lacks or garbles {error}") from error


def check_ends(connection: sqlite3.Connection, partition: int, path: Path) -> None:
    """Raise LogCorrupt where the last append is not there whole: rows were lost at the end of the file."""
    events, batches = events_table(partition), batches_table(partition)
    end, promised = connection.execute(  # one statement: two would see two states of a log that grows
        f"SELECT coalesce((SELECT max(position) FROM {events}), 0), coalesce((SELECT first_position + count - 1"
        f" FROM {batches} ORDER BY first_position DESC LIMIT 1), 0)"
    ).fetchone()
    if end != promised:
        raise LogCorrupt(
            f"{path}: partition {partition} ends at position {end}, but its last append ended at {promised}; "
            "restore the file from a backup"
        )
