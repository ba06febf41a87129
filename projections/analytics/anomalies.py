"""Anomalies of a trend: a bucket against the same hour of the week before, by a robust z-score.

z = 0.6745 (value - median) / MAD, where MAD is the median of the distances from the median, and an anomaly is
|z| > 3.5: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993). A day is compared with the same day of the
week, a week with the weeks before. What can not be judged is counted, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median

import duckdb

from session_ledger.domain.errors import InvalidInput, QueryFailed
from session_ledger.projections.analytics.trends import (
    EPOCH,
    WIDTHS,
    Key,
    TrendRow,
    TrendTable,
    floor_of,
    is_whole,
    read_trend,
)

SCALE = 0.6745  # the MAD of a normal distribution, in standard deviations
THRESHOLD = 3.5
WEEKS = 8
HISTORY_MIN = 4  # of fewer values a median and MAD say little
WEEK = timedelta(weeks=1)

ANOMALY, USUAL = "anomaly", "usual"
TOO_LITTLE_HISTORY = "too_little_history"
NO_SPREAD = "no_spread"
INCOMPLETE = "incomplete"
NO_VALUE = "no_value"
VERDICTS = (ANOMALY, USUAL, TOO_LITTLE_HISTORY, NO_SPREAD, INCOMPLETE, NO_VALUE)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a bucket was judged by."""

    start: datetime
    slice: str | None
    part: str | None
    verdict: str
    """anomaly; usual; too_little_history; no_spread (the history is one value); incomplete (the bucket goes on, or
    began before the window); no_value."""
    value: float | None
    median: float | None
    mad: float | None
    n: int
    """Values of the history."""
    z: float | None


@dataclass(frozen=True, slots=True)
class Anomalies:
    """What was found: every bucket of the window, judged."""

    table: TrendTable
    """The trend, of the window alone."""
    value: str
    """The column that was judged."""
    evidence: tuple[Evidence, ...]
    threshold: float
    weeks: int

    @property
    def found(self) -> tuple[Evidence, ...]:
        """The anomalies, the strongest first."""
        return tuple(sorted((e for e in self.evidence if e.verdict == ANOMALY), key=lambda e: -abs(e.z or 0)))

    @property
    def counts(self) -> dict[str, int]:
        """How many buckets have each verdict."""
        return {verdict: sum(e.verdict == verdict for e in self.evidence) for verdict in VERDICTS}


def judge(
    value: float, history: Sequence[float], threshold: float = THRESHOLD
) -> tuple[str, float | None, float | None, float | None]:
    """(verdict, median, MAD, z) of a value against its history."""
    if not history:
        return TOO_LITTLE_HISTORY, None, None, None
    middle = median(history)
    mad = median(abs(one - middle) for one in history)
    if len(history) < HISTORY_MIN:
        return TOO_LITTLE_HISTORY, middle, mad, None
    if mad == 0:
        return USUAL if value == middle else NO_SPREAD, middle, mad, 0.0 if value == middle else None
    z = SCALE * (value - middle) / mad
    return ANOMALY if abs(z) > threshold else USUAL, middle, mad, z


def find_anomalies(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    *,
    since: datetime,
    until: datetime,
    every: str = "hour",
    by: str | None = None,
    tenant: str | None = None,
    only: Mapping[str, str] | None = None,
    weeks: int = WEEKS,
    threshold: float = THRESHOLD,
) -> Anomalies:
    """Judge every bucket of the window by up to so many weeks before it. Raises InvalidInput, QueryFailed."""
    if weeks < 1 or threshold <= 0:
        raise InvalidInput("weeks, threshold", f"{weeks}, {threshold:g}", "must be 1 or more, and more than 0")
    # the window first: which series are there is decided by it, not by what was before
    window = read_trend(connection, name, since=since, until=until, every=every, by=by, tenant=tenant, only=only)
    begun = _begun(connection, tenant)
    earliest = floor_of(window.since, every) - weeks * WEEK
    if begun is not None and begun > earliest:
        earliest = min(floor_of(begun, every) + WIDTHS[every], window.since)  # the ledger's first bucket is not whole
    history: dict[Key, dict[datetime, float]] = {}
    column = window.of(window.trend.judged)
    before = window.rows
    if earliest < window.since:
        told = read_trend(
            connection,
            name,
            since=earliest,
            until=window.until,
            every=every,
            by=by,
            tenant=tenant,
            only=only,
            most=None,
        )
        before = told.rows
    for row in before:
        value = row.values[column]
        if value is not None and row.start >= earliest:
            history.setdefault((row.slice, row.part), {})[row.start] = float(value)
    evidence = tuple(
        _judged(row, window, column, history.get((row.slice, row.part), {}), weeks, threshold) for row in window.rows
    )
    return Anomalies(window, window.trend.judged, evidence, threshold, weeks)


def _judged(
    row: TrendRow, table: TrendTable, column: int, history: Mapping[datetime, float], weeks: int, threshold: float
) -> Evidence:
    value = row.values[column]
    key = (row.start, row.slice, row.part)
    past = [history[at] for week in range(1, weeks + 1) if (at := row.start - week * WEEK) in history]
    if not is_whole(row, table):
        return Evidence(*key, INCOMPLETE, None if value is None else float(value), None, None, len(past), None)
    if value is None:
        return Evidence(*key, NO_VALUE, None, None, None, len(past), None)
    verdict, middle, mad, z = judge(float(value), past, threshold)
    return Evidence(*key, verdict, float(value), middle, mad, len(past), z)


def _begun(connection: duckdb.DuckDBPyConnection, tenant: str | None) -> datetime | None:
    """When the first event happened: before that nothing was 0, there was nothing."""
    try:
        found = connection.execute(
            "SELECT epoch_us(min(happened_at)) FROM events WHERE $tenant IS NULL OR tenant = $tenant",
            {"tenant": tenant},
        ).fetchone()
    except duckdb.Error as error:
        raise QueryFailed(str(error)) from error
    first_us = found[0] if found else None
    return None if first_us is None else (EPOCH + timedelta(microseconds=first_us)).astimezone(UTC)
