"""Trends: named questions over a window, by bucket and dimension. The macros of trends.sql answer; this asks them.

Any DuckDB connection will do on which `events` is there and trends.sql was executed. Names of macros and columns come
from the registry below, values are bound: nothing that a caller says becomes SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import duckdb

from session_ledger.domain.errors import InvalidInput, QueryFailed

Number = int | float | Decimal
Key = tuple[str | None, str | None]
"""Slice and part."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MONDAY = datetime(1, 1, 1, tzinfo=UTC)  # buckets are counted from here, in trends.sql too
WIDTHS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}
WINDOW = "window"
BUCKETS_MAX = 50_000  # five years by hour
MOST = 100  # series: more than a table or chart shows
OF_SESSIONS = ("tenant", "domain", "channel")
OF_MESSAGES = (*OF_SESSIONS, "agent_type", "model")


@dataclass(frozen=True, slots=True)
class Trend:
    """A trend: what its macro `trend_NAME` gives."""

    name: str
    title: str
    unit: str
    """Of the values that are plotted."""
    dimensions: tuple[str, ...]
    """What it can be sliced by and restricted to."""
    values: tuple[str, ...]
    """Columns; the first is the main one."""
    part: str | None = None
    """The column that breaks every bucket down, such as the reason of ends."""
    plotted: tuple[str, ...] = ()
    judged: str = ""
    """The column in which anomalies are looked for."""
    momentary: bool = False
    """What is at a moment, not in a time: a window's value is the mean of its buckets."""

    @property
    def macro(self) -> str:
        """The table macro in trends.sql."""
        return f"trend_{self.name}"

    def counts(self, value: str) -> bool:
        """Whether that value is 0 where nothing happened; else there is none, such as a percentile of nothing."""
        return not value.endswith("_ms") and value != "utilization"


def _trend(name: str, title: str, unit: str, dimensions: tuple[str, ...], *values: str, **more: Any) -> Trend:
    return Trend(name, title, unit, dimensions, values, **{"plotted": values[:1], "judged": values[0]} | more)


_PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms")
TRENDS: Mapping[str, Trend] = MappingProxyType(
    {
        trend.name: trend
        for trend in (
            _trend("sessions_started", "Sessions started", "sessions", OF_SESSIONS, "sessions"),
            _trend("sessions_ended", "Sessions ended", "sessions", OF_SESSIONS, "sessions", part="reason"),
            _trend("sessions_live", "Live sessions", "sessions", OF_SESSIONS, "sessions", momentary=True),
            _trend("messages", "Messages", "messages", OF_MESSAGES, "messages", "of_users"),
            _trend(
                "tokens", "Tokens", "tokens", OF_MESSAGES, "tokens_in", "tokens_cached", "tokens_out",
                "tokens_reasoning", plotted=("tokens_in", "tokens_out"),
            ),
            _trend(
                "cost", "Cost of tokens", "currency", OF_MESSAGES, "cost", "rounded", "priced_tokens",
                "unpriced_tokens",
            ),
            _trend(
                "latency", "Latency of models", "ms", OF_MESSAGES, "messages", *_PERCENTILES, "max_ms",
                plotted=_PERCENTILES, judged="p95_ms",
            ),
            _trend("errors", "Errors", "errors", (*OF_SESSIONS, "agent_type"), "errors", part="severity"),
            _trend("quota_refusals", "Refusals by quotas", "refusals", ("tenant",), "refusals", part="resource"),
            _trend(
                "agent_utilization", "Utilization of agents", "part of the time", ("tenant", "agent_type"),
                "utilization", "held_s", "registered_s",
            ),
            _trend(
                "agent_waiting", "Waiting for agents", "ms", ("tenant", "agent_type"), "acquired", "refused",
                "waits_told", "p50_ms", "p95_ms", "max_ms", plotted=("p50_ms", "p95_ms"), judged="p95_ms",
            ),
            _trend(
                "users", "Users", "users", OF_MESSAGES, "users", "returning_users", "new_users",
                plotted=("users", "returning_users"),
            ),
            _trend("topics", "Topics", "messages", OF_MESSAGES, "messages", "percent", part="topic"),
        )
    }
)  # fmt: skip
"""Every trend by its name."""


@dataclass(frozen=True, slots=True)
class TrendRow:
    """A bucket of a series. `values` are in the order of the trend's; None: there is no such value, which is not 0."""

    start: datetime
    slice: str | None
    """The value of the dimension; None: it has none (or the trend is not sliced)."""
    part: str | None
    """The value of the trend's part; None: unknown."""
    values: tuple[Number | None, ...]
    previous: tuple[Number | None, ...] | None = None
    """Of the same bucket of the window before; None: not compared."""


@dataclass(frozen=True, slots=True)
class Change:
    """A value of a series over the whole window, and over the window of the same length before."""

    slice: str | None
    part: str | None
    value: str
    """The name of the value."""
    now: Number | None
    before: Number | None

    @property
    def difference(self) -> Number | None:
        """now - before; None where either is not there."""
        if self.now is None or self.before is None:
            return None
        if isinstance(self.now, float) or isinstance(self.before, float):
            return float(self.now) - float(self.before)
        return self.now - self.before

    @property
    def percent(self) -> float | None:
        """The difference as a percentage of before; None where that is 0 or not there."""
        difference = self.difference
        return None if difference is None or not self.before else 100 * float(difference) / float(self.before)


@dataclass(frozen=True, slots=True)
class TrendTable:
    """A trend over the window [since, until): rows by time, slice and part."""

    trend: Trend
    since: datetime
    until: datetime
    every: str
    by: str | None
    rows: tuple[TrendRow, ...]
    currency: str | None = None
    """Of a cost."""
    more: bool = False
    """There are more series: these are the largest."""
    changes: tuple[Change, ...] = ()
    """Where it was compared with the window before."""

    @property
    def unit(self) -> str:
        """Of the values that are plotted."""
        return (self.currency or "no price") if self.trend.unit == "currency" else self.trend.unit

    @property
    def series(self) -> dict[Key, tuple[TrendRow, ...]]:
        """The rows of each series, by time."""
        found: dict[Key, list[TrendRow]] = {}
        for row in self.rows:
            found.setdefault((row.slice, row.part), []).append(row)
        return {key: tuple(rows) for key, rows in found.items()}

    def of(self, value: str) -> int:
        """Where that value stands in a row's values."""
        return self.trend.values.index(value)


def trend_of(name: str) -> Trend:
    """The trend of that name. Raises InvalidInput."""
    if name not in TRENDS:
        raise InvalidInput("trend", f"{name[:40]!r}", f"must be one of {', '.join(TRENDS)}")
    return TRENDS[name]


def floor_of(moment: datetime, every: str) -> datetime:
    """When the bucket that holds the moment begins: UTC; weeks on Monday."""
    return moment - (moment.astimezone(UTC) - FIRST_MONDAY) % WIDTHS[every]


def is_whole(row: TrendRow, table: TrendTable) -> bool:
    """Whether the row's bucket lies in the window as a whole."""
    return table.since <= row.start and row.start + WIDTHS[table.every] <= table.until


def read_trend(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    *,
    since: datetime,
    until: datetime,
    every: str = "hour",
    by: str | None = None,
    tenant: str | None = None,
    only: Mapping[str, str] | None = None,
    compare: bool = False,
    most: int | None = MOST,
) -> TrendTable:
    """A trend over [since, until).

    `by`: one of the trend's dimensions. `tenant`, `only`: restrict to a tenant, and to values of other dimensions.
    `compare`: with the window of the same length before. `most`: series at most, the largest. Raises InvalidInput,
    QueryFailed.
    """
    trend = trend_of(name)
    restricted = dict(only or {}) | ({} if tenant is None else {"tenant": tenant})
    _check(trend, since, until, every, by, restricted)
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    table = _ask(connection, trend, since, until, every, by, restricted, most)
    return _compared(connection, table, restricted) if compare else table


def read_total(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    *,
    since: datetime,
    until: datetime,
    by: str | None = None,
    tenant: str | None = None,
    only: Mapping[str, str] | None = None,
) -> TrendTable:
    """The window as one bucket: what sums of buckets would get wrong (users, percentiles) is right here."""
    return read_trend(
        connection, name, since=since, until=until, every=WINDOW, by=by, tenant=tenant, only=only, most=None
    )


def _check(
    trend: Trend, since: datetime, until: datetime, every: str, by: str | None, restricted: Mapping[str, str]
) -> None:
    for field, moment in (("since", since), ("until", until)):
        if moment.tzinfo is None:
            raise InvalidInput(field, "a time without a time zone", "must have one")
    if since >= until:
        raise InvalidInput("since", f"{since.isoformat()}, not before {until.isoformat()}", "must be before until")
    if every != WINDOW and every not in WIDTHS:
        raise InvalidInput("every", f"{every[:40]!r}", f"must be one of {', '.join(WIDTHS)}")
    if every in WIDTHS and (until - since) / WIDTHS[every] > BUCKETS_MAX:
        raise InvalidInput("every", f"more than {BUCKETS_MAX:,} buckets", "take a longer one, or a shorter window")
    known = ", ".join(trend.dimensions)
    if by is not None and by not in trend.dimensions:
        raise InvalidInput("by", f"{by[:40]!r}", f"{trend.name} goes by {known}")
    for dimension in restricted:
        if dimension not in trend.dimensions:
            raise InvalidInput("only", f"{dimension[:40]!r}", f"{trend.name} knows {known}")


def _ask(
    connection: duckdb.DuckDBPyConnection,
    trend: Trend,
    since: datetime,
    until: datetime,
    every: str,
    by: str | None,
    restricted: Mapping[str, str],
    most: int | None,
) -> TrendTable:
    given: dict[str, object] = {"since": since, "until": until, "every": every, "slice_by": by}
    given["most"] = None if most is None else most + 1
    given |= {f"only_{dimension}": value for dimension, value in restricted.items()}
    named = ", ".join(f"{name} := ${name}" for name in given if name not in ("since", "until"))
    currency = "currency" if trend.unit == "currency" else "NULL"
    query = (
        f"SELECT epoch_us(bucket), slice, {trend.part or 'NULL'}, {currency}, {', '.join(trend.values)} "
        f"FROM {trend.macro}($since::TIMESTAMPTZ, $until::TIMESTAMPTZ, {named})"
    )
    try:
        found = connection.execute(query, given).fetchall()
    except duckdb.Error as error:
        raise QueryFailed(f"{trend.name}: {error}") from error
    starts = {start_us: EPOCH + timedelta(microseconds=start_us) for start_us in {row[0] for row in found}}
    rows = [TrendRow(starts[row[0]], row[1], row[2], row[4:]) for row in found]
    table = TrendTable(
        trend, since, until, every, by, tuple(rows), next((row[3] for row in found if row[3] is not None), None)
    )
    return table if most is None else _largest(table, most)


def _largest(table: TrendTable, most: int) -> TrendTable:
    """Without the smallest series, which was asked for only to know that there are more."""
    series = table.series
    if len(series) <= most:
        return table
    smallest = min(series, key=lambda key: sum(float(row.values[0] or 0) for row in series[key]))
    rows = tuple(row for row in table.rows if (row.slice, row.part) != smallest)
    return replace(table, rows=rows, more=True)


# --- the window before --------------------------------------------------------------------------------------------


def _compared(connection: duckdb.DuckDBPyConnection, table: TrendTable, restricted: Mapping[str, str]) -> TrendTable:
    trend, length = table.trend, table.until - table.since
    since = table.since - length
    nothing: tuple[Number | None, ...] = tuple(0 if trend.counts(value) else None for value in trend.values)
    rows = table.rows
    before = None
    if trend.momentary or not table.more:
        before = _ask(connection, trend, since, table.since, table.every, table.by, restricted, None)
        if length % WIDTHS[table.every] == timedelta(0):  # else no bucket has one that it goes with
            at = {(row.start, row.slice, row.part): row.values for row in before.rows}
            rows = tuple(
                replace(row, previous=at.get((row.start - length, row.slice, row.part), nothing)) for row in rows
            )
    if trend.momentary and before is not None:
        now, then = _means(table), _means(before)
    else:
        now = _totals(_ask(connection, trend, table.since, table.until, WINDOW, table.by, restricted, None))
        then = _totals(_ask(connection, trend, since, table.since, WINDOW, table.by, restricted, None))
    keys = list(table.series if table.more else {**table.series, **then})
    changes = [
        Change(*key, value, now.get(key, nothing)[place], then.get(key, nothing)[place])
        for key in keys
        for place, value in enumerate(trend.values)
    ]
    return replace(table, rows=rows, changes=tuple(changes))


def _totals(table: TrendTable) -> dict[Key, tuple[Number | None, ...]]:
    return {(row.slice, row.part): row.values for row in table.rows}


def _means(table: TrendTable) -> dict[Key, tuple[Number | None, ...]]:
    found: dict[Key, tuple[Number | None, ...]] = {}
    for key, rows in table.series.items():
        columns = zip(*(row.values for row in rows), strict=True)
        found[key] = tuple(float(sum(value or 0 for value in column)) / len(rows) for column in columns)
    return found
