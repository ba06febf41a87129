"""Trends: each macro says what a plain recomputation of the same events says, whatever the window and the dimension."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from session_ledger.domain.errors import InvalidInput
from session_ledger.projections.analytics import prices
from session_ledger.projections.analytics.anomalies import (
    ANOMALY,
    INCOMPLETE,
    NO_SPREAD,
    TOO_LITTLE_HISTORY,
    USUAL,
    find_anomalies,
    judge,
)
from session_ledger.projections.analytics.trends import EPOCH, TRENDS, Key, read_total, read_trend
from tests.projections.analytics.plain_trends import HOUR, PLAIN, PRICES, Plain, same
from tests.projections.analytics.trend_events import BEGIN, connection_of, fact, world

WINDOWS = (
    (BEGIN - timedelta(days=2), BEGIN + timedelta(days=7)),
    (datetime(2026, 2, 28, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)),  # over Sunday midnight, into a week
    (datetime(2026, 2, 27, 23, 30, 0, 1, tzinfo=UTC), datetime(2026, 2, 28, 11, 0, 0, 1, tzinfo=UTC)),
    (datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 1, 2, tzinfo=UTC)),  # nothing
)


@pytest.mark.parametrize("name", TRENDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_trend_is_what_a_plain_recomputation_gives(name: str, seed: int) -> None:
    """Every dimension, bucket and window: the same rows with the same values, exactly where they are exact."""
    facts = world(seed)
    db = connection_of(facts, zone=["UTC", "America/St_Johns"][seed % 2])
    prices.install_rows(db, PRICES)
    for since, until in WINDOWS:
        for every in ("hour", "day", "week", "window"):
            long = every == "hour" and until - since > timedelta(days=5)
            for by in (None, *TRENDS[name].dimensions[: 0 if long else None]):
                table = read_trend(db, name, since=since, until=until, every=every, by=by)
                seen = {(row.start, row.slice, row.part): row.values for row in table.rows}
                expected = PLAIN[name](Plain(facts, since, until, every, by))
                case = (since, every, by)
                assert (case, sorted(map(str, expected))) == (case, sorted(map(str, seen)))
                wrong = {at: (expected[at], seen[at]) for at in seen if not same(expected[at], seen[at])}
                assert (case, {}) == (case, wrong)


@pytest.mark.parametrize("name", TRENDS)
def test_a_trend_can_be_restricted_to_each_of_its_dimensions(name: str) -> None:
    """What a slice shows is what restricting to its value shows."""
    db = connection_of(world(3))
    prices.install_rows(db, PRICES)
    since, until = WINDOWS[1]
    for dimension in TRENDS[name].dimensions:
        sliced = read_trend(db, name, since=since, until=until, every="day", by=dimension)
        for value in {row.slice for row in sliced.rows if row.slice is not None}:
            told = read_trend(db, name, since=since, until=until, every="day", only={dimension: value})
            one = {(row.start, row.part): row.values for row in told.rows}
            other = {(row.start, row.part): row.values for row in sliced.rows if row.slice == value}
            assert (dimension, value, one) == (dimension, value, other)


def test_buckets_are_utc_whatever_the_time_zones() -> None:
    """Neither the session's zone nor that of the window's times moves a bucket; weeks begin on Monday in UTC."""
    facts = [fact("SessionCreated", datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC), session_id=None),
             fact("SessionCreated", datetime(2026, 3, 2, tzinfo=UTC), session_id=None)]  # fmt: skip
    east = timezone(timedelta(hours=5, minutes=45))
    since, until = datetime(2026, 2, 23, 5, 45, tzinfo=east), datetime(2026, 3, 9, 5, 45, tzinfo=east)
    for zone in ("UTC", "Pacific/Auckland"):
        db = connection_of(facts, zone=zone)
        rows = read_trend(db, "sessions_started", since=since, until=until, every="week").rows
        mondays = [datetime(2026, 2, 23, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC)]
        assert [(monday, (1,)) for monday in mondays] == [(row.start, row.values) for row in rows]


def test_times_before_1970_have_their_buckets() -> None:
    """An imported history may be old."""
    at = datetime(1969, 12, 31, 23, 30, tzinfo=UTC)
    db = connection_of([fact("SessionCreated", at, session_id=None)])
    rows = read_trend(db, "sessions_started", since=EPOCH - 2 * HOUR, until=EPOCH + HOUR).rows
    assert [(EPOCH - 2 * HOUR, (0,)), (EPOCH - HOUR, (1,)), (EPOCH, (0,))] == [(row.start, row.values) for row in rows]


def test_comparison_is_with_the_window_of_the_same_length_before() -> None:
    """Totals of both windows, right also where sums of buckets would not be, and each bucket beside its earlier one."""
    facts = world(4, sessions=80)
    db = connection_of(facts)
    since, until = datetime(2026, 2, 28, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)
    for name in ("users", "latency", "sessions_ended", "messages"):
        table = read_trend(db, name, since=since, until=until, compare=True)
        earlier = read_trend(db, name, since=since - 24 * HOUR, until=since)
        now = {(r.slice, r.part): r.values for r in read_total(db, name, since=since, until=until).rows}
        then = {(r.slice, r.part): r.values for r in read_total(db, name, since=since - 24 * HOUR, until=since).rows}
        values = table.trend.values
        for change in table.changes:
            key: Key = (change.slice, change.part)
            place = values.index(change.value)
            assert (name, now[key][place] if key in now else 0) == (name, change.now)
            assert (name, then[key][place] if key in then else 0) == (name, change.before)
        before = {(row.start, row.part): row.values for row in earlier.rows}
        for row in table.rows:
            if (row.start - 24 * HOUR, row.part) in before:
                assert before[row.start - 24 * HOUR, row.part] == row.previous
    change = read_trend(db, "messages", since=since, until=until, compare=True).changes[0]
    assert isinstance(change.now, int)
    assert isinstance(change.before, int)
    assert change.now - change.before == change.difference
    assert pytest.approx(100 * (change.now - change.before) / change.before) == change.percent


def test_a_new_slice_is_compared_with_nothing() -> None:
    """A count that was not there was 0; a percentage of 0 is none."""
    db = connection_of([fact("SessionCreated", BEGIN, session_id=None, tenant="new")])
    table = read_trend(
        db, "sessions_started", since=BEGIN - HOUR, until=BEGIN + HOUR, every="hour", by="tenant", compare=True
    )
    assert [("new", 1, 0, 1, None)] == [(c.slice, c.now, c.before, c.difference, c.percent) for c in table.changes]


def test_live_sessions_are_compared_by_their_mean() -> None:
    """What is at a moment is not added up."""
    facts = [fact("SessionCreated", BEGIN.replace(minute=0, second=0), session_id=None)]
    start = BEGIN.replace(minute=0, second=0)
    table = read_trend(
        db := connection_of(facts), "sessions_live", since=start - HOUR, until=start + HOUR, compare=True
    )
    assert [(0.5, 0.0)] == [(change.now, change.before) for change in table.changes]
    db.close()


def test_no_more_series_than_asked_for_and_it_is_said() -> None:
    """The largest stay; `more` says that there are others."""
    facts = [fact("SessionCreated", BEGIN, session_id=None, tenant=f"t-{n}") for n in range(5) for _ in range(n + 1)]
    asked: dict[str, Any] = {"since": BEGIN - HOUR, "until": BEGIN + HOUR, "by": "tenant"}
    table = read_trend(connection_of(facts), "sessions_started", most=2, **asked)
    assert ({"t-3", "t-4"}, True) == ({row.slice for row in table.rows}, table.more)
    assert not read_trend(connection_of(facts), "sessions_started", most=5, **asked).more


@pytest.mark.parametrize(
    ("name", "changed", "field"),
    [
        ("nothing'; DROP TABLE events", {}, "trend"),
        ("messages", {"every": "minute"}, "every"),
        ("messages", {"by": "user"}, "by"),
        ("sessions_started", {"by": "model"}, "by"),
        ("sessions_started", {"only": {"model": "m"}}, "only"),
        ("messages", {"since": BEGIN.replace(tzinfo=None)}, "since"),
        ("messages", {"until": BEGIN - 2 * HOUR}, "since"),
        ("messages", {"since": datetime(1, 1, 1, tzinfo=UTC)}, "every"),
    ],
)
def test_what_can_not_be_asked_is_refused_by_name(name: str, changed: dict[str, object], field: str) -> None:
    """Names come from closed sets, windows are windows; the error names the field."""
    asked: dict[str, Any] = {"since": BEGIN - HOUR, "until": BEGIN + HOUR, **changed}
    with pytest.raises(InvalidInput) as caught:
        read_trend(connection_of([]), name, **asked)
    assert field == caught.value.field


def test_a_value_is_never_sql() -> None:
    """A tenant of any name is a value."""
    name = "x' OR '1' = '1"
    db = connection_of([fact("SessionCreated", BEGIN, session_id=None, tenant=name)])
    asked: dict[str, Any] = {"since": BEGIN - HOUR, "until": BEGIN + HOUR, "every": "week"}
    assert [(1,)] == [r.values for r in read_trend(db, "sessions_started", tenant=name, **asked).rows]
    assert [(0,)] == [r.values for r in read_trend(db, "sessions_started", tenant="y", **asked).rows]


@pytest.mark.parametrize("arguments", ["every := 'minute'", "slice_by := 'user'"])
def test_the_macros_refuse_what_they_do_not_know(arguments: str) -> None:
    """In SQL as well, an unknown bucket or dimension is an error and no empty answer."""
    with pytest.raises(Exception, match="must be"):
        connection_of([]).execute(
            f"FROM trend_messages('2026-01-01'::TIMESTAMPTZ, '2026-01-02'::TIMESTAMPTZ, {arguments})"
        ).fetchall()


def test_every_macro_says_what_it_is() -> None:
    """`sql --schema` shows the comments."""
    silent = connection_of([]).execute(
        "SELECT function_name FROM duckdb_functions() WHERE NOT internal AND comment IS NULL"
    )
    assert [] == silent.fetchall()


# --- anomalies ----------------------------------------------------------------------------------------------------


def test_a_value_is_judged_by_median_and_mad() -> None:
    """z = 0.6745 (x - median) / MAD; one outlier in the history does not hide another."""
    assert (ANOMALY, 12, 1, 0.6745 * 8) == judge(20, [10, 11, 12, 13, 500])
    assert (USUAL, 12, 1, 0.6745) == judge(13, [10, 11, 12, 13, 500])
    assert (TOO_LITTLE_HISTORY, 2, 1, None) == judge(100, [1, 2, 3])
    assert (TOO_LITTLE_HISTORY, None, None, None) == judge(100, [])
    assert (NO_SPREAD, 5, 0, None) == judge(6, [5, 5, 5, 5])
    assert (USUAL, 5, 0, 0.0) == judge(5, [5, 5, 5, 5])


def test_a_burst_is_found_against_the_same_hour_of_the_week() -> None:
    """Mondays at nine are busy and no anomaly; a Monday at nine that is five times as busy is, with its evidence."""
    monday = datetime(2026, 1, 5, 9, tzinfo=UTC)
    facts = [fact("SessionCreated", monday - 9 * HOUR, session_id=None)]
    for week, number in enumerate((20, 22, 21, 23, 20, 110)):
        at = monday + timedelta(weeks=week)
        facts += [fact("SessionCreated", at + timedelta(seconds=n), session_id=None) for n in range(number)]
        facts.append(fact("SessionCreated", at + 5 * HOUR, session_id=None))
    db = connection_of(facts)
    last = monday + timedelta(weeks=5)
    judged = find_anomalies(db, "sessions_started", since=last - HOUR, until=last + 6.5 * HOUR)
    (found,) = judged.found
    assert (last, 110, 21, 1, 5) == (found.start, found.value, found.median, found.mad, found.n)
    assert pytest.approx(0.6745 * 89) == found.z
    assert 0 == judged.counts[TOO_LITTLE_HISTORY]
    early = find_anomalies(db, "sessions_started", since=monday, until=monday + timedelta(weeks=1, hours=2))
    assert () == early.found
    assert 170 == early.counts[TOO_LITTLE_HISTORY]
    assert [INCOMPLETE] == [e.verdict for e in judged.evidence if e.start == last + 6 * HOUR]
    no_ledger = find_anomalies(connection_of([]), "latency", since=monday, until=monday + HOUR)
    assert () == no_ledger.found
