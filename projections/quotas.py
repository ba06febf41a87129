"""Quotas as they stand: limits, the buckets of every window, open reservations, refusals.

The windows are the domain's own (`domain.windows`), kept as rows: a batch loads the end of each window it touches, lets
the domain count, and writes back what changed. So a report from these rows is the ledger's own answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from session_ledger.domain.account import Reservation
from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import (
    Event,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    QuotaSet,
    QuotaThresholdReached,
    UserLimitsSet,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.windows import Bucket, Window

Key = tuple[str, str, str]
"""Tenant, user, resource."""
_DDL = """
CREATE TABLE quotas (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    resource TEXT NOT NULL,
    own_limit TEXT,                 -- decimal; NULL: the user has no limit of its own
    own_period_ms INTEGER NOT NULL, -- 0: never set
    consumed TEXT NOT NULL,         -- decimal: all that was ever consumed
    released TEXT NOT NULL,         -- decimal: what of it was given back
    last_consumed_at INTEGER,
    refusals INTEGER NOT NULL,
    last_refused_at INTEGER,
    alerts INTEGER NOT NULL,        -- times that usage went over the threshold
    last_alert_at INTEGER,
    PRIMARY KEY (tenant, user, resource)
) STRICT, WITHOUT ROWID;
CREATE TABLE quota_buckets (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    resource TEXT NOT NULL,
    first_us INTEGER NOT NULL,
    last_us INTEGER NOT NULL,
    amount TEXT NOT NULL,           -- decimal
    PRIMARY KEY (tenant, user, resource, first_us)
) STRICT, WITHOUT ROWID;
CREATE TABLE quota_reservations (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    resource TEXT NOT NULL,
    reservation_id BLOB NOT NULL,
    recorded_at INTEGER NOT NULL,
    open_until INTEGER NOT NULL,
    amount TEXT NOT NULL,           -- decimal
    PRIMARY KEY (tenant, user, resource, reservation_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE user_limits (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    max_sessions INTEGER,
    limit_policy TEXT,
    plan TEXT,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, user)
) STRICT, WITHOUT ROWID;
"""

_OF_KEY = "tenant = ? AND user = ? AND resource = ?"
_READ_QUOTA = f"""
SELECT own_limit, own_period_ms, consumed, released, last_consumed_at, refusals, last_refused_at, alerts, last_alert_at
FROM quotas WHERE {_OF_KEY}"""
_READ_BUCKETS = f"""
SELECT first_us, last_us, amount FROM quota_buckets WHERE {_OF_KEY} AND first_us >= coalesce(
    (SELECT max(first_us) FROM quota_buckets WHERE {_OF_KEY} AND first_us <= ?),
    (SELECT min(first_us) FROM quota_buckets WHERE {_OF_KEY}))
ORDER BY first_us"""
_READ_RESERVATION = f"""
SELECT recorded_at, open_until, amount FROM quota_reservations WHERE {_OF_KEY} AND reservation_id = ?"""
_LATEST = 2**63 - 1


@dataclass(slots=True)
class _Totals:
    """A row of `quotas`, without its key."""

    own_limit: Decimal | None = None
    own_period_ms: int = 0
    consumed: Decimal = Decimal(0)
    released: Decimal = Decimal(0)
    last_consumed_at: int | None = None
    refusals: int = 0
    last_refused_at: int | None = None
    alerts: int = 0
    last_alert_at: int | None = None


@dataclass(slots=True)
class _Resource:
    """One user's resource while a batch is folded: its totals, and what of its window the batch can touch."""

    totals: _Totals
    window: Window
    stored: dict[int, tuple[int, str]]
    """The buckets as they were read, by `first_us`."""
    reservations: dict[bytes, Reservation]
    """Those that the batch releases or makes."""
    settled: list[bytes] = field(default_factory=list)
    made: list[bytes] = field(default_factory=list)
    gone_until: int | None = None
    """Buckets whose last amount is not after this have left the window."""


class QuotasProjection:
    """Tables quotas, quota_buckets, quota_reservations and user_limits."""

    name = "quotas"
    version = 1
    ddl = _DDL
    tables = ("quotas", "quota_buckets", "quota_reservations", "user_limits")

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold a batch; raises LogCorrupt for the release of a reservation that is not open."""
        gathered: dict[Key, list[Any]] = {}
        limits: dict[tuple[str, str], UserLimitsSet] = {}
        for _, event in events:
            event_type = type(event)
            if event_type in _FOLDS:
                gathered.setdefault((event.tenant, event.user, event.resource), []).append(event)  # type: ignore[attr-defined]
            elif event_type is UserLimitsSet:
                limits[event.tenant, event.user] = event  # type: ignore[assignment]
        for key, of_key in gathered.items():
            resource = _load(db, key, of_key)
            for event in of_key:
                _FOLDS[type(event)](resource, event)
            _write(db, key, resource)
        db.executemany(
            "INSERT OR REPLACE INTO user_limits VALUES (?, ?, ?, ?, ?, ?)",
            [
                (*key, event.max_sessions, event.limit_policy, event.plan, event.recorded_at)
                for key, event in limits.items()
            ],
        )


# --- the fold -----------------------------------------------------------------------------------------------------


def _set(resource: _Resource, event: QuotaSet) -> None:
    resource.totals.own_limit, resource.totals.own_period_ms = event.limit, event.period_ms


def _consumed(resource: _Resource, event: QuotaConsumed) -> None:
    now, period_us = event.recorded_at, event.period_ms * 1000
    resource.window.consume(now, event.amount, period_us)
    resource.gone_until = max(now - period_us, resource.gone_until or 0)
    resource.totals.consumed += event.amount
    resource.totals.last_consumed_at = now
    if event.reserved:
        resource.reservations[event.event_id] = Reservation(now, now + period_us, event.amount)
        resource.made.append(event.event_id)


def _released(resource: _Resource, event: QuotaReleased) -> None:
    reservation = resource.reservations.pop(event.reservation_id, None)
    if reservation is None:
        raise LogCorrupt(f"QuotaReleased of reservation {format_id(event.reservation_id)}, which is not open")
    resource.window.release(reservation.recorded_at, event.amount)
    resource.settled.append(event.reservation_id)
    resource.totals.released += event.amount


def _refused(resource: _Resource, event: QuotaRefused) -> None:
    resource.totals.refusals += event.count
    resource.totals.last_refused_at = event.recorded_at


def _alerted(resource: _Resource, event: QuotaThresholdReached) -> None:
    resource.totals.alerts += 1
    resource.totals.last_alert_at = event.recorded_at


_FOLDS: dict[type[Event], Callable[[_Resource, Any], None]] = {
    QuotaSet: _set,
    QuotaConsumed: _consumed,
    QuotaReleased: _released,
    QuotaRefused: _refused,
    QuotaThresholdReached: _alerted,
}

# --- rows ---------------------------------------------------------------------------------------------------------


def _load(db: sqlite3.Connection, key: Key, events: Sequence[Event]) -> _Resource:
    """The totals, the reservations that are released, and the window from the first bucket on that may change."""
    row = db.execute(_READ_QUOTA, key).fetchone()
    totals = _Totals() if row is None else _Totals(_decimal(row[0]), row[1], Decimal(row[2]), Decimal(row[3]), *row[4:])
    reservations = {}
    for event in events:
        if isinstance(event, QuotaReleased):
            found = db.execute(
                _READ_RESERVATION,
                (*key, event.reservation_id),
            ).fetchone()
            if found is not None:
                reservations[event.reservation_id] = Reservation(found[0], found[1], Decimal(found[2]))
    since = min((reservation.recorded_at for reservation in reservations.values()), default=_LATEST)
    buckets = [
        Bucket(first_us, last_us, Decimal(amount))
        for first_us, last_us, amount in db.execute(_READ_BUCKETS, (*key, *key, since, *key))
    ]
    stored = {bucket.first_us: (bucket.last_us, str(bucket.amount)) for bucket in buckets}
    return _Resource(totals, Window(buckets), stored, reservations)


def _write(db: sqlite3.Connection, key: Key, resource: _Resource) -> None:
    totals = resource.totals
    db.execute(
        "INSERT OR REPLACE INTO quotas VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key,
            None if totals.own_limit is None else str(totals.own_limit),
            totals.own_period_ms,
            str(totals.consumed),
            str(totals.released),
            totals.last_consumed_at,
            totals.refusals,
            totals.last_refused_at,
            totals.alerts,
            totals.last_alert_at,
        ),
    )
    changed = [
        (*key, bucket.first_us, bucket.last_us, str(bucket.amount))
        for bucket in resource.window.buckets[resource.window.head :]
        if resource.stored.get(bucket.first_us) != (bucket.last_us, str(bucket.amount))
    ]
    db.executemany("INSERT OR REPLACE INTO quota_buckets VALUES (?, ?, ?, ?, ?, ?)", changed)
    db.executemany(
        f"DELETE FROM quota_reservations WHERE {_OF_KEY} AND reservation_id = ?",
        [(*key, reservation_id) for reservation_id in resource.settled],
    )
    db.executemany(
        "INSERT INTO quota_reservations VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (*key, reservation_id, made.recorded_at, made.open_until, str(made.amount))
            for reservation_id in resource.made
            if (made := resource.reservations.get(reservation_id)) is not None
        ],
    )
    if resource.gone_until is not None:
        db.execute(f"DELETE FROM quota_buckets WHERE {_OF_KEY} AND last_us <= ?", (*key, resource.gone_until))
        db.execute(
            f"DELETE FROM quota_reservations WHERE {_OF_KEY} AND open_until <= ?", (*key, totals.last_consumed_at)
        )


def _decimal(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
