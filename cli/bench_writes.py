"""The two measurements of `bench`: the ledger, and bare sqlite3."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from session_ledger.ledger.ledger import Ledger

CONTENT_CHARACTERS = 200
CONTENT = ("the parcel was sent on monday and has not arrived " * 5)[:CONTENT_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Measured:
    """Messages a second, and how long a caller waited for one."""

    messages: int
    rate: float
    p50_ms: float
    p99_ms: float


def ledger_writes(directory: Path, callers: int, seconds: float) -> Measured:
    """Each thread adds messages to its own session, one after the other."""
    with Ledger.open(f"sqlite:{directory}", principals={}) as ledger:
        sessions = [(f"user-{n}", ledger.create_session("bench", f"user-{n}").session_id) for n in range(callers)]

        def caller(number: int) -> Callable[[], object]:
            user, session_id = sessions[number]
            return lambda: ledger.add_message("bench", user, session_id, role="user", content=CONTENT)

        return _measure(caller, callers, seconds)


def bare_sqlite(path: Path, callers: int, seconds: float) -> Measured:
    """One connection and one lock; each message is a transaction."""
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, user TEXT, number INTEGER, content BLOB)")
    lock = threading.Lock()
    value = CONTENT.encode()

    def caller(number: int) -> Callable[[], object]:
        user = f"user-{number}"

        def write() -> None:
            with lock:
                connection.execute("INSERT INTO messages (user, number, content) VALUES (?, 1, ?)", (user, value))

        return write

    try:
        return _measure(caller, callers, seconds)
    finally:
        connection.close()


def _measure(caller: Callable[[int], Callable[[], object]], callers: int, seconds: float) -> Measured:
    waits: list[list[float]] = [[] for _ in range(callers)]
    failed: list[BaseException] = []
    start = threading.Barrier(callers + 1)
    until = [0.0]

    def run(number: int) -> None:
        write, mine = caller(number), waits[number]
        start.wait()
        try:
            while (began := time.perf_counter()) < until[0]:
                write()
                mine.append(time.perf_counter() - began)
        except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(callers)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    until[0] = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    if failed:
        raise failed[0]
    every = sorted(wait for mine in waits for wait in mine)
    if not every:
        return Measured(0, 0.0, 0.0, 0.0)
    p50, p99 = (round(every[int(len(every) * share)] * 1000, 3) for share in (0.5, 0.99))
    return Measured(len(every), round(len(every) / took, 1), p50, p99)
