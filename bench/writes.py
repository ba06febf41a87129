"""The write path on SQLite: one caller, many callers, one session with many, and bulk."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench import floors
from bench.report import Line
from session_ledger.domain.commands import ImportedMessage, ImportSession
from session_ledger.domain.ids import derived_session_id, slot_of_user
from session_ledger.ledger.ledger import Ledger

CONTENT = ("Where is my parcel? It was to come on Tuesday. " * 5)[:200]
CALLERS = 256
ROUNDS = 3
Measure = Callable[[int, int, int], tuple[float, float]]
VALUE_BYTES = 380  # what one message event of 200 characters takes as Avro


def _ledger(directory: str, **options: object) -> Ledger:
    return Ledger.open(f"sqlite:{directory}", **options)


def _sessions(ledger: Ledger, count: int) -> list[tuple[str, str]]:
    futures = []
    for number in range(count):
        user = f"user-{number}"
        futures.append((user, ledger.create_session("acme", user).session_id))
    return futures


def one_caller(messages: int) -> float:
    """Messages a second of one thread that waits for each."""
    with tempfile.TemporaryDirectory() as directory, _ledger(directory) as ledger:
        [(user, session)] = _sessions(ledger, 1)
        started = time.perf_counter()
        for _ in range(messages):
            ledger.add_message("acme", user, session, role="user", content=CONTENT)
        return messages / (time.perf_counter() - started)


def threads(messages: int, callers: int, sessions: int, **options: object) -> tuple[float, float]:
    """(messages a second, mean messages an append) of `callers` threads over `sessions` sessions."""
    with tempfile.TemporaryDirectory() as directory, _ledger(directory, **options) as ledger:
        of = _sessions(ledger, sessions)
        each = messages // callers

        def call(number: int) -> None:
            user, session = of[number % sessions]
            for _ in range(each):
                ledger.add_message("acme", user, session, role="user", content=CONTENT)

        workers = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        before = _appends(directory)
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        rate = each * callers / (time.perf_counter() - started)
        return rate, each * callers / max(_appends(directory) - before, 1)


def in_loop(messages: int, callers: int, sessions: int, **options: object) -> tuple[float, float]:
    """The same with asyncio tasks."""
    with tempfile.TemporaryDirectory() as directory, _ledger(directory, **options) as ledger:
        of = _sessions(ledger, sessions)
        each = messages // callers

        async def call(number: int) -> None:
            user, session = of[number % sessions]
            aio = ledger.aio
            for _ in range(each):
                await aio.add_message("acme", user, session, role="user", content=CONTENT)

        async def run() -> float:
            started = time.perf_counter()
            await asyncio.gather(*(call(number) for number in range(callers)))
            return each * callers / (time.perf_counter() - started)

        before = _appends(directory)
        rate = asyncio.run(run())
        return rate, each * callers / max(_appends(directory) - before, 1)


def bulk(messages: int, a_session: int = 10, **options: object) -> tuple[float, float]:
    """(messages a second, mean events an append) of imported sessions, from parsed input."""
    with tempfile.TemporaryDirectory() as directory, _ledger(directory, **options) as ledger:
        history = tuple(
            ImportedMessage("user" if n % 2 else "assistant", CONTENT, occurred_at=1_700_000_000_000_000 + n)
            for n in range(a_session)
        )
        sessions = messages // a_session
        users = [f"user-{n % 300}" for n in range(sessions)]
        before = _appends(directory)
        started = time.perf_counter()
        window: list[object] = []
        for number in range(sessions):
            user = users[number]
            session_id = derived_session_id(f"bench:{number}", 1_700_000_000_000_000, slot_of_user("acme", user))
            window.append(
                ledger.submit(ImportSession(tenant="acme", user=user, session_id=session_id, messages=history))
            )
            if len(window) >= 500:
                for future in window[:250]:
                    future.result()  # type: ignore[attr-defined]
                del window[:250]
        for future in window:
            future.result()  # type: ignore[attr-defined]
        rate = sessions * a_session / (time.perf_counter() - started)
        return rate, sessions * (a_session + 2) / max(_appends(directory) - before, 1)


def _appends(directory: str) -> int:
    """How many appends the log holds, so that the floor can commit batches of the same size."""
    connection = sqlite3.connect(f"file:{directory}/log.db?mode=ro", uri=True)
    (count,) = connection.execute("SELECT count(*) FROM batches").fetchone()
    connection.close()
    return int(count)


def _floor(measure: Callable[[Path], float]) -> float:
    with tempfile.TemporaryDirectory() as directory:
        return measure(Path(directory) / "bare.db")


def in_turns(figure: Callable[[], float], floor: Callable[[], float]) -> tuple[float, float]:
    """Medians of the two, measured in turns, so that a noisy moment of the machine meets both."""
    figures, floors_ = [], []
    for _ in range(ROUNDS):
        floors_.append(floor())
        figures.append(figure())
    return statistics.median(figures), statistics.median(floors_)


def _line(what: str, floor_what: str, wanted: float, figure: float, floor: float, note: str = "") -> Line:
    return Line(what, figure, "messages/s", floor_what, floor, f">= {wanted}", figure >= wanted * floor, note)


def lines(scale: float) -> list[Line]:
    """The write figures; `scale` 1.0 takes about two minutes."""
    count = int(20_000 * scale)
    result: list[Line] = []

    few = max(count // 20, 50)
    pair = in_turns(lambda: one_caller(few), lambda: _floor(lambda path: floors.library_saves(path, few)))
    result.append(_line("SQLite, 1 caller", "the library's save an event", 1.0, *pair))

    each = floors.interleaved(max(count // 4, CALLERS), CALLERS, VALUE_BYTES)
    batch = 1.0
    for name, measure, wanted in (("threads", threads, 2.0), ("asyncio", in_loop, 3.5)):
        note: list[float] = []

        def figure(measure: Measure = measure, note: list[float] = note) -> float:
            rate, mean = measure(count, CALLERS, CALLERS)
            note.append(mean)
            return rate

        pair = in_turns(figure, lambda: _floor(lambda path: floors.bare_threads(path, each, CALLERS)))
        batch = statistics.median(note)
        floor_what = f"sqlite3 committing each, {CALLERS} threads"
        result.append(_line(f"SQLite, {CALLERS} callers, {name}", floor_what, wanted, *pair, f"{batch:.0f} an append"))

    rows = floors.interleaved(count, CALLERS, VALUE_BYTES)
    pair = in_turns(
        lambda: in_loop(count, CALLERS, CALLERS)[0],
        lambda: _floor(lambda path: floors.bare_batches(path, rows, max(int(batch), 1))),
    )
    result.append(_line(f"SQLite, {CALLERS} callers, asyncio", f"sqlite3, {batch:.0f} a commit", 0.3, *pair))

    size = bulk(count)[1]
    rows = floors.in_order(count * 2, 12, VALUE_BYTES)
    pair = in_turns(
        lambda: bulk(count * 2)[0], lambda: _floor(lambda path: floors.bare_batches(path, rows, max(int(size), 1)))
    )
    result.append(_line("SQLite, bulk, 10 messages a session", f"sqlite3, {size:.0f} a commit", 0.33, *pair))

    pair = in_turns(lambda: bulk(count * 2)[0], lambda: bulk(count * 2, encryption="none")[0])
    result.append(_line("sealed, bulk, 10 messages a session", "the same with encryption none", 0.85, *pair))

    pair = in_turns(lambda: threads(count // 2, 10, 1)[0], lambda: threads(count // 2, 10, 10)[0])
    result.append(_line("one session, 10 callers", "10 sessions, 10 callers", 0.8, *pair))
    return result
