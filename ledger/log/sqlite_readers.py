"""Connections that read a log file: lent one a call, kept open between calls, never shared by two threads at once."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from session_ledger.domain.errors import LedgerClosed, LogUnavailable
from session_ledger.ledger.log.sqlite_errors import as_log_error

IDLE_CONNECTIONS = 8  # kept open for the next call; each costs a file handle and its page cache
BUSY_TIMEOUT_S = 5.0  # for a lock that another process holds; appends take milliseconds


def connect(path: Path, *, write: bool, immutable: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time; `path` must exist. Raises sqlite3.Error.

    `immutable` promises that no process changes the file meanwhile; only then no file is made beside it.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'rw' if write else 'ro'}{'&immutable=1' if immutable else ''}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    connection.text_factory = _text
    return connection


def _text(found: bytes) -> str:
    return found.decode("utf-8", "surrogateescape")  # what is no text was not written by a ledger: who reads it says so


class Readers:
    """A pool of read-only connections to one file. Thread-safe; not for use after a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pid = os.getpid()
        self._lock = Lock()
        self._idle: list[sqlite3.Connection] = []
        self.closed = False

    @contextmanager
    def lend(self) -> Iterator[sqlite3.Connection]:
        """A connection for this call alone.

        Raises LedgerClosed after `close`, and LogUnavailable or LogCorrupt for every error of SQLite inside the block.
        """
        if os.getpid() != self._pid:
            raise LogUnavailable(
                f"the log {self._path} was opened by process {self._pid} before it forked; open it again in this one"
            )
        connection: sqlite3.Connection | None = None
        try:
            connection = self._take()
            yield connection
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
                connection = None
            raise as_log_error(error, "reading", self._path) from error
        finally:
            if connection is not None:
                self._give_back(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self.closed:
                raise LedgerClosed(f"the log {self._path} is closed")
            if self._idle:
                return self._idle.pop()
        return connect(self._path, write=False)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self.closed and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close what is idle; what is lent closes when it comes back. Idempotent."""
        with self._lock:
            self.closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


def holder(path: Path) -> str:
    """Who owns the log, as the log has it; a process that is just creating the log has not said so yet."""
    try:
        connection = connect(path, write=False)
        try:
            return str(connection.execute("SELECT holder FROM owner").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        return f"a process that can not be named ({error})"
