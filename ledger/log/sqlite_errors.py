"""What an error of SQLite means in the ledger's own tree."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from session_ledger.domain.errors import LogCorrupt, LogUnavailable, SessionLedgerError

FULL = sqlite3.SQLITE_FULL
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT)
_NOTHING_WRITTEN = (  # a COMMIT that ends so has not written its last frame, or has not begun
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CONSTRAINT,
)
_HINTS = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_BUSY: "another process holds the database's write lock: try again",
    sqlite3.SQLITE_CANTOPEN: "check that the directory and its files exist and that this user may write there",
    sqlite3.SQLITE_READONLY: "the file or its directory is read-only: make both writable for this user",
    sqlite3.SQLITE_IOERR: "the disk reports an error: check it, its quota and the file size limit",
}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code (https://www.sqlite.org/rescode.html); 0 where Python itself raised."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def describe(error: sqlite3.Error) -> str:
    """SQLite's message, its code's name, and what to do about it."""
    name = getattr(error, "sqlite_errorname", None) or type(error).__name__
    hint = _HINTS.get(primary_code(error))
    return f"{error} ({name})" + (f"; {hint}" if hint else "")


def nothing_was_written(error: sqlite3.Error) -> bool:
    """Whether a COMMIT that failed so leaves no trace that a later recovery of the file could find."""
    return primary_code(error) in _NOTHING_WRITTEN


def as_log_error(error: sqlite3.Error, doing: str, path: Path) -> SessionLedgerError:
    """LogCorrupt where the file is damaged or lacks what every log has, else LogUnavailable."""
    text = f"{doing} {path}: {describe(error)}"
    if primary_code(error) in _DAMAGED:
        return LogCorrupt(text)
    return LogUnavailable(text)
