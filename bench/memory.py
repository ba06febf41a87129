"""Resident memory of live sessions, its flatness over ended ones, and appends to sessions that left memory."""

from __future__ import annotations

import ctypes
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Line
from bench.writes import CONTENT
from session_ledger.domain.commands import AddMessage, CreateSession, EndSession, ImportedMessage, ImportSession
from session_ledger.domain.ids import derived_session_id, parse_id, slot_of_user
from session_ledger.ledger.ledger import Ledger

WINDOW = 2000
MESSAGES_OF_LONG = 5000


def resident_mb() -> float:
    """This process's resident memory in MB (10^6 bytes), once the allocator has given back what is free.

    glibc keeps up to 20 MB of freed memory, more or less from run to run, which nothing of the ledger holds.
    """
    gc.collect()
    if hasattr(trim := ctypes.CDLL(None), "malloc_trim"):
        trim.malloc_trim(0)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError("no VmRSS in /proc/self/status")


def _wait(futures: list[object]) -> None:
    for future in futures:
        future.result()  # type: ignore[attr-defined]
    futures.clear()


def live(directory: str, sessions: int, messages: int) -> float:
    """MB added by that many live sessions, one a user, of that many messages."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        warm = ledger.create_session("acme", "warm")
        ledger.add_message("acme", "warm", warm.session_id, role="user", content=CONTENT)
        before = resident_mb()
        futures: list[object] = []
        ids: list[bytes] = []
        for number in range(sessions):
            future = ledger.submit(CreateSession(tenant="acme", user=f"user-{number}"))
            futures.append(future)
            if len(futures) == WINDOW or number == sessions - 1:
                ids.extend(parse_id(f.result().session_id) for f in futures)  # type: ignore[attr-defined]
                futures.clear()
        for _ in range(messages):
            for number, session_id in enumerate(ids):
                futures.append(
                    ledger.submit(
                        AddMessage(
                            tenant="acme", user=f"user-{number}", session_id=session_id, role="user", content=CONTENT
                        )
                    )
                )
                if len(futures) == WINDOW:
                    _wait(futures)
        _wait(futures)
        return resident_mb() - before


def ended(directory: str, sessions: int) -> tuple[float, float]:
    """(MB after a tenth of the sessions have ended, MB after all have)."""
    with Ledger.open(f"sqlite:{directory}") as ledger:
        futures: list[object] = []
        early = 0.0
        for number in range(sessions):
            user = f"user-{number % 50_000}"
            session_id = derived_session_id(f"bench:{number}", 1_700_000_000_000_000, slot_of_user("acme", user))
            message = ImportedMessage("user", "hello")
            futures.append(
                ledger.submit(ImportSession(tenant="acme", user=user, session_id=session_id, messages=(message,)))
            )
            if len(futures) == WINDOW:
                _wait(futures)
            if number == sessions // 10:
                early = resident_mb()
        _wait(futures)
        return early, resident_mb()


def cold(directory: str, others: int) -> tuple[float, float]:
    """(median seconds of a cold append, of a warm one) to sessions of 5,000 messages that left memory between."""
    long_sessions = 5
    with Ledger.open(f"sqlite:{directory}", accounts_in_memory=16) as ledger:
        ids = [parse_id(ledger.create_session("acme", f"long-{n}").session_id) for n in range(long_sessions)]
        futures: list[object] = []
        for n, session_id in enumerate(ids):
            for _ in range(MESSAGES_OF_LONG):
                futures.append(
                    ledger.submit(
                        AddMessage(tenant="acme", user=f"long-{n}", session_id=session_id, role="user", content=CONTENT)
                    )
                )
                if len(futures) == WINDOW:
                    _wait(futures)
        _wait(futures)
        for n in range(others):
            session = ledger.create_session("acme", f"other-{n}")
            ledger.submit(
                EndSession(tenant="acme", user=f"other-{n}", session_id=parse_id(session.session_id))
            ).result()
        colds, warms = [], []
        for n, session_id in enumerate(ids):
            for index in range(21):
                started = time.perf_counter()
                ledger.add_message("acme", f"long-{n}", session_id, role="user", content=CONTENT)
                (warms if index else colds).append(time.perf_counter() - started)
        return statistics.median(colds), statistics.median(warms)


def _in_process(call: str) -> list[float]:
    """Run one of the above in a fresh interpreter, in a fresh directory, and read its figures."""
    with tempfile.TemporaryDirectory() as directory:
        code = f"from bench import memory; r = memory.{call}; print(*(r if isinstance(r, tuple) else (r,)))"
        done = subprocess.run(
            [sys.executable, "-c", code.replace("DIR", repr(directory))], check=True, capture_output=True, text=True
        )
    return [float(word) for word in done.stdout.split()]


def lines(scale: float) -> list[Line]:
    """Memory and cold appends; `scale` 1.0 takes some minutes."""
    sessions = int(10_000 * scale)
    [added] = _in_process(f"live(DIR, {sessions}, 20)")
    over = int(1_000_000 * scale)
    early, late = _in_process(f"ended(DIR, {over})")
    cold_s, warm_s = _in_process("cold(DIR, 200)")
    return [
        Line(f"{sessions:,} live sessions of 20 messages", added, "MB added", wanted="< 120", holds=added < 120),
        Line(
            f"resident after {over:,} sessions have ended", late, "MB", "after a tenth of them", early, "flat: <= 1.1",
            late <= 1.1 * early,
        ),
        Line(
            "cold append to a session of 5,000 messages", cold_s * 1000, "ms", "a warm one", warm_s * 1000, "<= 3",
            cold_s <= 3 * warm_s,
        ),
    ]  # fmt: skip
