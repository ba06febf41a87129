"""Paged reads of the views at 100,000 sessions."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

from bench.report import Line
from session_ledger.consumers.views import Views
from session_ledger.domain.commands import ImportedMessage, ImportSession
from session_ledger.domain.ids import derived_session_id, format_id, slot_of_user
from session_ledger.ledger.ledger import Ledger

READS = 200
PAGE = 50
USERS = 2000


def _measured(read: Callable[[int], object]) -> tuple[float, float]:
    """(median, 99th percentile) in ms."""
    times = []
    for number in range(READS):
        started = time.perf_counter()
        read(number)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]


def lines(scale: float) -> list[Line]:
    """Pages of 50 with content opened; the views are caught up before."""
    sessions = int(100_000 * scale)
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:{directory}"
        ids: list[tuple[str, str]] = []
        history = tuple(ImportedMessage("user", f"message {n}") for n in range(4))
        with Ledger.open(url) as ledger:
            futures = []
            for number in range(sessions):
                user = f"user-{number % USERS}"
                session_id = derived_session_id(f"bench:{number}", 1_700_000_000_000_000, slot_of_user("acme", user))
                ids.append((user, format_id(session_id)))
                command = ImportSession(
                    tenant="acme", user=user, session_id=session_id, title=f"Order {number}", messages=history
                )
                futures.append(ledger.submit(command))
                if len(futures) == 1000:
                    for future in futures:
                        future.result()
                    futures.clear()
            for future in futures:
                future.result()
        with Views.open(url) as views:
            views.refresh()
            step = max(sessions // READS, 1)
            reads: dict[str, Callable[[int], object]] = {
                "a tenant's page of 50 sessions": lambda n: views.tenant_sessions("acme", status=None, limit=PAGE),
                "a user's page of 50 sessions": lambda n: views.sessions(
                    "acme", f"user-{n % USERS}", status=None, limit=PAGE
                ),
                "a session's last 50 messages": lambda n: views.history("acme", *ids[n * step % sessions], last=PAGE),
            }
            return [
                Line(f"{what}, of {sessions:,}", median, "ms", wanted="< 5", holds=median < 5, note=f"p99 {p99:.1f}")
                for what, (median, p99) in ((what, _measured(read)) for what, read in reads.items())
            ]
