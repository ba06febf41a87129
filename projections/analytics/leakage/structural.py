"""The structural checks: queries over the events, for what must never be, whatever was said."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import duckdb

from session_ledger.projections.analytics.leakage.findings import Leak, Place, direction

KINDS = (
    "agent_held_twice",
    "agent_without_lease",
    "foreign_owner",
    "key_of_two_sessions",
    "message_after_end",
    "reset_failed",
    "reset_missing",
)


def leaks_by_structure(connection: duckdb.DuckDBPyConnection) -> list[Leak]:
    """Every finding in a snapshot, ordered by where it came to light; one of a kind between two sessions."""
    rows = connection.execute(
        "SELECT kind, severity, partition, position, epoch_us(recorded_at), tenant, user, session_id::VARCHAR,"
        " source_partition, source_position, epoch_us(source_recorded_at), source_tenant, source_user,"
        " source_session_id::VARCHAR FROM leaks_by_structure() ORDER BY partition, position, kind"
    ).fetchall()
    found: dict[bytes, Leak] = {}
    for kind, severity, *rest in rows:
        place, source = _place(rest[:6]), _place(rest[6:])
        leak = Leak(kind, severity, place, source, direction(source, place), None, 1.0)
        found.setdefault(leak.finding_id, leak)
    return list(found.values())


def _place(row: list[Any]) -> Place:
    partition, position, recorded_at, tenant, user, session_id = row
    moment = int(recorded_at.timestamp() * 1_000_000) if isinstance(recorded_at, datetime) else int(recorded_at)
    return Place(partition, position, moment, tenant, user, None if session_id is None else UUID(session_id).bytes)
