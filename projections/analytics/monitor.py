"""The monitor's queries: how each live session is, how the fleet is, and what needs attention."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

HEALTHY_OVER = 70
ERRORS_MAX = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What is still fine."""

    error_rate_max: float = 0.1
    """Errors a message."""
    latency_ms_max: float = 5_000
    """The mean of a session's."""
    age_s_max: float = 86_400
    """Since it began."""
    errors_max: int = ERRORS_MAX
    """One more in a session is an alert."""


@dataclass(frozen=True, slots=True)
class SessionHealth:
    """A live session. Ids are UUID text, times aware datetimes (UTC)."""

    session_id: str
    tenant: str
    user: str
    channel: str
    started_at: datetime
    last_message_at: datetime
    duration_s: float
    """From its beginning to its last message."""
    age_s: float
    messages: int
    model_calls: int
    """Messages that a model wrote."""
    tokens_in: int
    tokens_out: int
    errors: int
    error_rate: float
    """Errors a message."""
    latency_ms: float | None
    """The mean time that models took; None: none was told."""
    last_error: str | None
    last_error_at: datetime | None
    health: int
    """100, less what is over the limits."""

    @property
    def healthy(self) -> bool:
        """Over 70."""
        return self.health > HEALTHY_OVER


@dataclass(frozen=True, slots=True)
class Monitored:
    """The fleet at one moment."""

    live: int
    unhealthy: int
    by_channel: dict[str, int]
    messages: int
    errors: int
    latency_ms: float | None
    worst: tuple[SessionHealth, ...]
    """The least healthy sessions first, of equals those with more errors."""
    alerts: tuple[SessionHealth, ...]
    """Live sessions with more errors than is fine."""
    alerts_on_record: dict[str, int]
    """What the view `alerts` holds, of every kind and time: kind to count, the most first."""


def read_monitor(
    connection: duckdb.DuckDBPyConnection,
    now: datetime,
    *,
    tenant: str | None = None,
    limits: Limits = Limits(),
    most: int = 20,
) -> Monitored:
    """How the live sessions are at `now`. `most`: how many of the worst are named; alerts are all."""
    bounds = {
        "now": now,
        "error_rate_max": limits.error_rate_max,
        "latency_ms_max": limits.latency_ms_max,
        "age_s_max": limits.age_s_max,
    }
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE monitored AS SELECT *, session_id::VARCHAR AS id FROM session_health($now,"
        " error_rate_max := $error_rate_max, latency_ms_max := $latency_ms_max, age_s_max := $age_s_max)"
        " WHERE $tenant IS NULL OR tenant = $tenant",
        {**bounds, "tenant": tenant},
    )
    live, unhealthy, messages, errors, latency_ms = connection.execute(
        "SELECT count(*), count(*) FILTER (health <= ?), coalesce(sum(messages), 0)::BIGINT,"
        " coalesce(sum(errors), 0)::BIGINT, sum(latency_ms * messages) / sum(messages) FILTER (latency_ms IS NOT NULL)"
        " FROM monitored",
        [HEALTHY_OVER],
    ).fetchall()[0]
    channels = connection.execute("SELECT channel, count(*) FROM monitored GROUP BY 1 ORDER BY 2 DESC, 1").fetchall()
    ordered = "ORDER BY health, errors DESC, started_at, id"
    worst = _sessions(connection, f"FROM monitored {ordered} LIMIT $most", {"most": most})
    alerts = _sessions(connection, f"FROM monitored WHERE errors > $most {ordered}", {"most": limits.errors_max})
    on_record = connection.execute(
        "SELECT kind, count(*) FROM alerts WHERE $tenant IS NULL OR tenant = $tenant GROUP BY 1 ORDER BY 2 DESC, 1",
        {"tenant": tenant},
    ).fetchall()
    return Monitored(live, unhealthy, dict(channels), messages, errors, latency_ms, worst, alerts, dict(on_record))


def _sessions(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, Any]
) -> tuple[SessionHealth, ...]:
    rows = connection.sql(query, params=parameters).to_arrow_table().to_pylist()
    fields = [field for field in SessionHealth.__slots__ if field != "session_id"]
    return tuple(SessionHealth(session_id=row["id"], **{field: row[field] for field in fields}) for row in rows)
