"""Floors: the same bytes through the bare libraries, measured in the same run as what they are compared with."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

Row = tuple[int, bytes, int, int, bytes]
INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?)"
PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


def bare_connection(path: Path) -> sqlite3.Connection:
    """A durable SQLite file with the columns and the unique index that a row of the log has."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    connection.execute(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, originator_id BLOB NOT NULL, version INTEGER NOT NULL,"
        " topic INTEGER NOT NULL, value BLOB NOT NULL)"
    )
    connection.execute("CREATE UNIQUE INDEX by_version ON events (originator_id, version)")
    return connection


def interleaved(rows: int, streams: int, value_bytes: int) -> list[Row]:
    """Rows of that many streams that take turns, as concurrent sessions do."""
    ids = sorted(os.urandom(16) for _ in range(streams))
    return [(n, ids[n % streams], n // streams, 3, os.urandom(value_bytes)) for n in range(rows)]


def in_order(rows: int, a_stream: int, value_bytes: int) -> list[Row]:
    """Rows stream by stream, as imported sessions stand."""
    ids = [os.urandom(16) for _ in range(rows // a_stream + 1)]
    return [(n, ids[n // a_stream], n % a_stream, 3, os.urandom(value_bytes)) for n in range(rows)]


def bare_batches(path: Path, values: list[Row], batch: int) -> float:
    """Rows a second of bare sqlite3, `batch` rows a commit."""
    connection = bare_connection(path)
    rows = len(values)
    started = time.perf_counter()
    for first in range(0, rows, batch):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(INSERT, values[first : first + batch])
        connection.execute("COMMIT")
    rate = rows / (time.perf_counter() - started)
    connection.close()
    return rate


def bare_threads(path: Path, rows: list[Row], threads: int) -> float:
    """Rows a second of bare sqlite3 where each of `threads` threads commits each row; one connection, one lock."""
    connection = bare_connection(path)
    lock = threading.Lock()
    values = iter(rows)

    def write() -> None:
        while True:
            with lock:
                row = next(values, None)
                if row is None:
                    return
                connection.execute(INSERT, row)

    workers = [threading.Thread(target=write) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rate = len(rows) / (time.perf_counter() - started)
    connection.close()
    return rate


class Chat(Aggregate):
    """The library's own way to keep a chat."""

    @event("Said")
    def say(self, role: str, content: str) -> None:
        """One message."""
        self.role, self.content = role, content


def library_saves(path: Path, rows: int) -> float:
    """Events a second of the eventsourcing library on SQLite, one aggregate event a save."""
    application: Application = Application({"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})
    chat = Chat()
    application.save(chat)
    content = "x" * 200
    started = time.perf_counter()
    for _ in range(rows):
        chat.say("user", content)
        application.save(chat)
    rate = rows / (time.perf_counter() - started)
    application.close()
    return rate
