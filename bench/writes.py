"""The write path on SQLite: one caller, many callers, one session with many, and bulk."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple, cast

from bench import floors
from bench.places import Place, SQLitePlace
from bench.report import Line
from session_ledger.domain.commands import CreateSession, ImportedMessage, ImportSession
from session_ledger.domain.ids import derived_session_id, slot_of_user
from session_ledger.domain.results import Result, SessionStarted
from session_ledger.ledger.ledger import Ledger

CONTENT = ("Where is my parcel? It was to come on Tuesday. " * 5)[:200]
CALLERS = 256
ROUNDS = 3
VALUE_BYTES = 380  # what one message event of 200 characters takes as Avro


class Ran(NamedTuple):
    """Messages a second, mean events an append, the 99th percentile of a caller's wait, the ledger's name."""

    rate: float
    an_append: float
    p99_ms: float
    ledger: str


Measure = Callable[[Place, int, int, int], Ran]


def _sessions(ledger: Ledger, count: int) -> list[tuple[str, str]]:
    """(user, session id) of that many new sessions, one a user."""
    under_way = [(f"user-{n}", ledger.submit(CreateSession(tenant="acme", user=f"user-{n}"))) for n in range(count)]
    return [(user, cast(SessionStarted, future.result()).session_id) for user, future in under_way]


def one_caller(place: Place, messages: int) -> Ran:
    """One thread that waits for each message."""
    return threads(place, messages, 1, 1)


def threads(place: Place, messages: int, callers: int, sessions: int, **options: object) -> Ran:
    """`callers` threads over `sessions` sessions, one message each at a time."""
    with place.opened(**options) as ledger:
        of = _sessions(ledger, sessions)
        each = messages // callers
        waits: list[float] = []

        def call(number: int) -> None:
            user, session = of[number % sessions]
            mine = []
            for _ in range(each):
                began = time.perf_counter()
                ledger.add_message("acme", user, session, role="user", content=CONTENT)
                mine.append(time.perf_counter() - began)
            waits.extend(mine)

        workers = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
        before = place.appends(ledger)
        started = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        took_s = time.perf_counter() - started
        return _ran(place, ledger, each * callers, took_s, before, waits)


def in_loop(place: Place, messages: int, callers: int, sessions: int, **options: object) -> Ran:
    """The same with asyncio tasks."""
    with place.opened(**options) as ledger:
        of = _sessions(ledger, sessions)
        each = messages // callers
        waits: list[float] = []

        async def call(number: int) -> None:
            user, session = of[number % sessions]
            aio = ledger.aio
            for _ in range(each):
                began = time.perf_counter()
                await aio.add_message("acme", user, session, role="user", content=CONTENT)
                waits.append(time.perf_counter() - began)

        async def run() -> float:
            started = time.perf_counter()
            await asyncio.gather(*(call(number) for number in range(callers)))
            return time.perf_counter() - started

        before = place.appends(ledger)
        took_s = asyncio.run(run())
        return _ran(place, ledger, each * callers, took_s, before, waits)


def import_sessions(ledger: Ledger, sessions: int, history: tuple[ImportedMessage, ...], users: int) -> None:
    """That many sessions of the same messages, of so many users in turn, some hundreds under way at a time."""
    window: list[Future[Result]] = []
    for number in range(sessions):
        user = f"user-{number % users}"
        session_id = derived_session_id(f"bench:{number}", 1_700_000_000_000_000, slot_of_user("acme", user))
        window.append(ledger.submit(ImportSession(tenant="acme", user=user, session_id=session_id, messages=history)))
        if len(window) >= 500:
            for future in window[:250]:
                future.result()
            del window[:250]
    for future in window:
        future.result()


def bulk(place: Place, messages: int, a_session: int = 10, **options: object) -> Ran:
    """Imported sessions of `a_session` messages, from parsed input."""
    with place.opened(**options) as ledger:
        history = tuple(
            ImportedMessage("user" if n % 2 else "assistant", CONTENT, occurred_at=1_700_000_000_000_000 + n)
            for n in range(a_session)
        )
        sessions = messages // a_session
        before = place.appends(ledger)
        started = time.perf_counter()
        import_sessions(ledger, sessions, history, 300)
        took_s = time.perf_counter() - started
        ran = _ran(place, ledger, sessions * a_session, took_s, before, [])
        return ran._replace(an_append=ran.an_append * (a_session + 2) / a_session)


def _ran(place: Place, ledger: Ledger, messages: int, took_s: float, before: int, waits: list[float]) -> Ran:
    p99_ms = statistics.quantiles(waits, n=100)[98] * 1000 if waits else 0.0
    return Ran(messages / took_s, messages / max(place.appends(ledger) - before, 1), p99_ms, ledger.name)


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
    place = SQLitePlace()

    few = max(count // 20, 50)
    pair = in_turns(lambda: one_caller(place, few).rate, lambda: _floor(lambda path: floors.library_saves(path, few)))
    result.append(_line("SQLite, 1 caller", "the library's save an event", 1.0, *pair))

    each = floors.interleaved(max(count // 4, CALLERS), CALLERS, VALUE_BYTES)
    batch = 1.0
    for name, measure, wanted in (("threads", threads, 2.0), ("asyncio", in_loop, 3.5)):
        note: list[float] = []

        def figure(measure: Measure = measure, note: list[float] = note) -> float:
            ran = measure(place, count, CALLERS, CALLERS)
            note.append(ran.an_append)
            return ran.rate

        pair = in_turns(figure, lambda: _floor(lambda path: floors.bare_threads(path, each, CALLERS)))
        batch = statistics.median(note)
        floor_what = f"sqlite3 committing each, {CALLERS} threads"
        result.append(_line(f"SQLite, {CALLERS} callers, {name}", floor_what, wanted, *pair, f"{batch:.0f} an append"))

    rows = floors.interleaved(count, CALLERS, VALUE_BYTES)
    pair = in_turns(
        lambda: in_loop(place, count, CALLERS, CALLERS).rate,
        lambda: _floor(lambda path: floors.bare_batches(path, rows, max(int(batch), 1))),
    )
    result.append(_line(f"SQLite, {CALLERS} callers, asyncio", f"sqlite3, {batch:.0f} a commit", 0.3, *pair))

    size = bulk(place, count).an_append
    rows = floors.in_order(count * 2, 12, VALUE_BYTES)
    pair = in_turns(
        lambda: bulk(place, count * 2).rate,
        lambda: _floor(lambda path: floors.bare_batches(path, rows, max(int(size), 1))),
    )
    result.append(_line("SQLite, bulk, 10 messages a session", f"sqlite3, {size:.0f} a commit", 0.33, *pair))

    pair = in_turns(lambda: bulk(place, count * 2).rate, lambda: bulk(place, count * 2, encryption="none").rate)
    result.append(_line("sealed, bulk, 10 messages a session", "the same with encryption none", 0.85, *pair))

    pair = in_turns(lambda: threads(place, count // 2, 10, 1).rate, lambda: threads(place, count // 2, 10, 10).rate)
    result.append(_line("one session, 10 callers", "10 sessions, 10 callers", 0.8, *pair))
    return result
