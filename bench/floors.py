"""Floors: the same bytes through the bare libraries, measured in the same run as what they are compared with."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")


def bare_connection(path: Path) -> sqlite3.Connection:
    """A durable SQLite file with one table of a position and a value."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    for pragma in PRAGMAS:
        connection.execute(pragma)
    connection.execute("CREATE TABLE events (position INTEGER PRIMARY KEY, value BLOB NOT NULL)")
    return connection


def bare_batches(path: Path, rows: int, batch: int, value_bytes: int) -> float:
    """Rows a second of bare sqlite3, `batch` rows a commit."""
    connection = bare_connection(path)
    values = [os.urandom(value_bytes) for _ in range(batch)]
    started = time.perf_counter()
    position = 0
    while position < rows:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events VALUES (?, ?)", [(position + i, v) for i, v in enumerate(values)])
        connection.execute("COMMIT")
        position += batch
    rate = position / (time.perf_counter() - started)
    connection.close()
    return rate


def bare_threads(path: Path, rows: int, threads: int, value_bytes: int) -> float:
    """Rows a second of bare sqlite3 where each of `threads` threads commits each row; one connection, one lock."""
    connection = bare_connection(path)
    value = os.urandom(value_bytes)
    lock = threading.Lock()
    counter = iter(range(rows))

    def write() -> None:
        while True:
            with lock:
                position = next(counter, None)
                if position is None:
                    return
                connection.execute("INSERT INTO events VALUES (?, ?)", (position, value))

    workers = [threading.Thread(target=write) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    rate = rows / (time.perf_counter() - started)
    connection.close()
    return rate


def library_saves(path: Path, rows: int) -> float:
    """Events a second of the eventsourcing library on SQLite, one aggregate event a save."""
    from eventsourcing.application import Application
    from eventsourcing.domain import Aggregate, event

    class Chat(Aggregate):
        @event("Said")
        def say(self, role: str, content: str) -> None:
            self.role, self.content = role, content

    application: Application = Application(
        {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)}
    )
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
