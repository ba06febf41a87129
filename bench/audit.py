"""The state of one session among ten million events: found by the index, read from the log, folded."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.analytics import BATCH, fill, grown
from bench.report import Line
from session_ledger.consumers.audit.index import Index
from session_ledger.consumers.audit.state import state_of, up_to
from session_ledger.consumers.tail import Tail
from session_ledger.domain.ids import parse_id
from session_ledger.ledger.open import open_log, open_settings
from session_ledger.ledger.published import codec_of
from session_ledger.ledger.url import parse_url
from session_ledger.projections.analytics.snapshots import Publisher, open_latest
from session_ledger.projections.analytics.store import AnalyticsStore

EVENTS = 10_000_000
SESSIONS = 100
LIMIT_MS = 50


def lines(scale: float) -> list[Line]:
    """The figure; `scale` 1.0 takes about two minutes, most of them to make the events."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        url = f"sqlite:{directory / 'sqlite'}"
        fill(url, BATCH * 2)
        log = open_log(parse_url(url), open_settings(None, {}), write=False)
        codec = codec_of(log)
        store = AnalyticsStore(directory / "parts1", log_id=log.log_id, ledger=log.name)
        Tail([log.control, *log.partitions], codec, store).catch_up()
        rows = store._db.execute(
            "SELECT session_id::VARCHAR FROM events WHERE event_type = 'SessionCreated' USING SAMPLE reservoir(? ROWS)"
            .replace("?", str(SESSIONS))
        ).fetchall()  # fmt: skip
        wanted = [parse_id(row[0]) for row in rows]
        events = grown(store, int(EVENTS * scale))
        Publisher(store, directory).publish()
        store.close()
        times = []
        with open_latest(directory) as snapshot:
            index = Index(log, codec, snapshot)
            for session_id in wanted:
                started = time.perf_counter()
                found = index.of_session(session_id)
                state = state_of(up_to(found.facts, found.facts[-1].position))
                times.append((time.perf_counter() - started) * 1000)
                assert found.by_index
                assert state.messages
        log.close()
    times.sort()
    what = f"audit state of a session among {events / 1e6:.0f} million events"
    median, p95 = times[len(times) // 2], times[len(times) * 95 // 100]
    return [
        Line(f"{what}, median", median, "ms", wanted=f"< {LIMIT_MS}", holds=median < LIMIT_MS),
        Line(f"{what}, p95", p95, "ms"),
    ]
