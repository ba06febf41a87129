"""`python -m bench.trends`: what each trend takes over 30 days by hour, of ten million events in 90 days.

The events lie in parts of half a million, in the order of their time, as the store leaves them behind. Each query runs
once to warm up and then three times; the slowest of the three counts. A process of its own measures, so that its peak
of memory is that of the queries.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from session_ledger.projections.analytics import prices
from session_ledger.projections.analytics.store import literal, part_path, script
from session_ledger.projections.analytics.trends import TRENDS, read_total, read_trend

EVENTS = 10_000_000
EVENTS_A_SESSION = 9.9  # a little over ten million come of it
DAYS, WINDOW_DAYS = 90, 30
PARTS = 20
THREADS, MEMORY = 2, "2GB"
ROUNDS = 3
START = datetime(2026, 1, 1, tzinfo=UTC)
MODELS = ("m-large", "m-small", "m-voice")

_SESSIONS = """
CREATE OR REPLACE TEMP TABLE begun AS
WITH numbered AS (SELECT i, (hash(i) >> 4)::BIGINT AS h, least(h % 20, (h >> 8) % 20) AS tenant_n,
    tenant_n + 20 * ((h >> 32) % 25) AS agent FROM range($first::BIGINT, $after::BIGINT) AS r(i))
SELECT
    i, h, md5_number(i::VARCHAR)::UUID AS session_id, 'tenant-' || tenant_n AS tenant,
    'user-' || ((h >> 16) % 100000) AS user,
    ['text', 'voice', 'phone', 'api'][1 + (h >> 24) % 4] AS channel,
    'shop-' || ((h >> 28) % 200) || '.example' AS domain,
    md5_number('agent-' || agent)::UUID AS agent_id, 'type-' || (agent // 20 % 5) AS agent_type,
    $start::TIMESTAMPTZ + to_microseconds((i * $step_us::BIGINT)::BIGINT) AS began_at, 60 + (h >> 40) % 1740 AS lasts_s
FROM numbered
"""
_EVENTS = """
INSERT INTO events BY NAME
WITH made AS (
    SELECT 'SessionCreated' AS event_type, began_at AS happened_at, b.*, NULL::BIGINT AS n FROM begun AS b
    UNION ALL
    SELECT 'MessageAdded', began_at + to_seconds(lasts_s * m.n / 12), b.*, m.n
    FROM begun AS b, range(1, 12) AS m(n) WHERE m.n <= 1 + b.h % 11
    UNION ALL
    SELECT CASE WHEN h % 10 < 4 THEN 'SessionExpired' WHEN h % 10 = 4 THEN 'SessionEvicted' ELSE 'SessionEnded' END,
        began_at + to_seconds(lasts_s), b.*, NULL FROM begun AS b WHERE h % 500 > 0
    UNION ALL SELECT 'AgentAcquired', began_at + to_seconds(2), b.*, NULL FROM begun AS b WHERE h % 10 < 6
    UNION ALL SELECT 'AgentReleased', began_at + to_seconds(lasts_s), b.*, NULL FROM begun AS b WHERE h % 10 < 6
    UNION ALL SELECT 'AgentRefused', began_at + to_seconds(2), b.*, NULL FROM begun AS b WHERE h % 100 = 7
    UNION ALL SELECT 'ErrorReported', began_at + to_seconds(lasts_s / 2), b.*, NULL FROM begun AS b WHERE h % 10 = 8
    UNION ALL SELECT 'QuotaConsumed', began_at + to_seconds(3), b.*, NULL FROM begun AS b WHERE h % 4 = 0
    UNION ALL SELECT 'QuotaRefused', began_at + to_seconds(4), b.*, NULL FROM begun AS b WHERE h % 50 = 9
    UNION ALL SELECT 'QuotaConsumed', began_at + to_seconds(5), b.*, NULL FROM begun AS b WHERE h % 5 < 2
)
SELECT
    0 AS partition, row_number() OVER (ORDER BY happened_at) + $first::BIGINT * 20 AS position, event_type,
    uuid() AS event_id, tenant, if(event_type IN ('AgentAcquired', 'AgentReleased'), '', user) AS user, happened_at,
    happened_at AS recorded_at, if(event_type LIKE 'Agent%', agent_id, session_id) AS stream, 1 AS version,
    if(event_type LIKE 'Quota%', NULL, session_id) AS session_id,
    if(event_type IN ('MessageAdded', 'ErrorReported') OR event_type LIKE 'Agent%', agent_id, NULL) AS agent_id,
    if(event_type LIKE 'Agent%', agent_type, NULL) AS agent_type,
    if(event_type = 'SessionCreated', channel, NULL) AS channel,
    if(event_type = 'SessionCreated', domain, NULL) AS domain,
    n AS message_number, if(n IS NULL, NULL, if(n % 2 = 1, 'user', 'assistant')) AS role,
    if(n % 2 = 0, ['m-large', 'm-small', 'm-voice'][1 + h % 3], NULL) AS model,
    if(n % 2 = 0, 200 + (h >> n::INT) % 4000, NULL) AS tokens_in,
    if(n % 2 = 0, 20 + (h >> n::INT) % 900, NULL) AS tokens_out,
    if(n % 2 = 0, (h >> n::INT) % 200, NULL) AS tokens_cached,
    if(n % 2 = 0, (h >> n::INT) % 20, NULL) AS tokens_reasoning,
    if(n % 2 = 0, 100 + (h >> (n + 3)::INT) % 9000, NULL) AS latency_ms,
    if(n IS NULL OR (h >> n::INT) % 8 = 0, NULL, 'topic-' || ((h >> n::INT) % 40)) AS topic,
    CASE event_type WHEN 'SessionEnded' THEN ['user', 'completed', 'admin'][1 + h % 3]
        WHEN 'SessionExpired' THEN ['idle', 'ttl'][1 + h % 2] WHEN 'AgentReleased' THEN 'session_ended' END AS reason,
    if(event_type LIKE 'Quota%', ['tokens', 'api_calls'][1 + h % 2], NULL) AS resource,
    if(event_type LIKE 'Quota%', (1 + h % 1000)::DECIMAL(38, 6), NULL) AS amount,
    if(event_type IN ('QuotaRefused', 'AgentRefused'), 1 + h % 3, NULL) AS count,
    if(event_type = 'ErrorReported', ['database', 'model'][1 + h % 2], NULL) AS component,
    if(event_type = 'ErrorReported', 'timeout', NULL) AS error_type,
    if(event_type = 'ErrorReported', ['warning', 'error', 'critical'][1 + h % 3], NULL) AS severity,
    if(event_type IN ('AgentAcquired', 'AgentRefused'), h % 20000, NULL) AS waited_ms,
    if(event_type = 'SessionExpired', json_object('due_at', happened_at - INTERVAL 20 SECOND), NULL) AS details
FROM made ORDER BY happened_at
"""
_AGENTS = """
INSERT INTO events BY NAME
SELECT
    0 AS partition, row_number() OVER () AS position, 'AgentRegistered' AS event_type, uuid() AS event_id,
    'tenant-' || (a % 20) AS tenant, '' AS user, $start::TIMESTAMPTZ AS happened_at, $start::TIMESTAMPTZ AS recorded_at,
    md5_number('agent-' || a)::UUID AS stream, 1 AS version, md5_number('agent-' || a)::UUID AS agent_id,
    'type-' || (a // 20 % 5) AS agent_type
FROM range(500) AS r(a)
"""


def generate(directory: Path, events: int) -> None:
    """Write about so many events into parts."""
    sessions = int(events / EVENTS_A_SESSION)
    step_us = DAYS * 86_400_000_000 // sessions
    for number in range(1, PARTS + 1):
        with duckdb.connect(str(part_path(directory, number)), config={"threads": THREADS}) as db:
            db.execute("SET TimeZone = 'UTC'")
            db.execute(script("schema.sql"))
            if number == 1:
                db.execute(_AGENTS, {"start": START})
            bounds = {"first": sessions * (number - 1) // PARTS, "after": sessions * number // PARTS}
            db.execute(_SESSIONS, {**bounds, "start": START, "step_us": step_us})
            db.execute(_EVENTS, {"first": bounds["first"]})


def connect(directory: Path) -> duckdb.DuckDBPyConnection:
    """The parts as one table, with the macros and a price list of three models that changes in the window."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": THREADS, "memory_limit": MEMORY, "temp_directory": ""
    }  # fmt: skip
    db = duckdb.connect(":memory:", config=config)
    db.execute("SET TimeZone = 'UTC'")
    found = sorted(directory.glob("part-*.duckdb"))
    for number, path in enumerate(found, 1):
        db.execute(f"ATTACH {literal(path)} AS part_{number} (READ_ONLY)")
    db.execute("CREATE VIEW events AS " + " UNION ALL ".join(f"FROM part_{n + 1}.events" for n in range(len(found))))
    db.execute(script("trends.sql"))
    listed = [
        {"model": model, "effective_from": day, "currency": "USD", "input_per_million": "2.50",
         "cached_input_per_million": "0.25", "output_per_million": "10"}
        for model in MODELS for day in ("2026-01-01", "2026-03-15T12:30:00Z")
    ]  # fmt: skip
    rows = prices.parse(json.dumps(listed), "json")
    prices.install_rows(db, rows)
    return db


def measure(directory: Path) -> None:
    """Print a row a trend and dimension, then the peak of memory."""
    db = connect(directory)
    count, last = db.execute("SELECT count(*), epoch_us(max(happened_at)) FROM events").fetchall()[0]
    until = datetime.fromtimestamp(last // 3_600_000_000 * 3600, UTC)
    since = until - timedelta(days=WINDOW_DAYS)
    print(f"{count:,} events, {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}, {THREADS} threads\n")
    print("| trend | by | s | rows |\n|---|---|---:|---:|")
    for name, trend in TRENDS.items():
        for by in (None, *trend.dimensions):
            took, rows = [], 0
            for _ in range(1 + ROUNDS):
                started = time.perf_counter()
                rows = len(read_trend(db, name, since=since, until=until, every="hour", by=by).rows)
                took.append(time.perf_counter() - started)
            slow = " **over**" if max(took[1:]) > 1 else ""
            print(f"| {name} | {by or '-'} | {max(took[1:]):.2f}{slow} | {rows:,} |", flush=True)
        started = time.perf_counter()
        read_total(db, name, since=since, until=until)
        print(f"| {name}, the window as one | - | {time.perf_counter() - started:.2f} | 1 |", flush=True)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\npeak memory of the process: {peak_kib / 1024**2:.2f} GiB")


def main() -> None:
    """Generate, measure, print."""
    parser = argparse.ArgumentParser(prog="bench.trends", description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--keep", type=Path, help="generate into this directory, or measure what is there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    with tempfile.TemporaryDirectory() as name:
        directory = options.keep or Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        if not list(directory.glob("part-*.duckdb")):
            generate(directory, options.events)
        subprocess.run([sys.executable, "-m", "bench.trends", "--measure", str(directory)], check=True)


if __name__ == "__main__":
    main()
