"""Tenant settings and published schemas, from the control log."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from session_ledger.domain.events import Event, LimitsSet, RetentionSet, SchemaPublished

_DDL = """
CREATE TABLE tenant_limits (
    tenant TEXT NOT NULL,
    plan TEXT NOT NULL,             -- '': the tenant's own settings
    max_sessions INTEGER,
    limit_policy TEXT,
    idle_timeout_ms INTEGER,
    website_idle_timeout_ms INTEGER,
    ttl_ms INTEGER,
    sensitive_ttl_ms INTEGER,
    alert_threshold_percent INTEGER,
    quotas TEXT NOT NULL,           -- JSON array of [resource, limit (decimal as text), period_ms]
    recorded_at INTEGER NOT NULL,
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tenant, plan)
) STRICT, WITHOUT ROWID;
CREATE TABLE schemas (
    fingerprint BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    schema_json TEXT NOT NULL,
    recorded_at INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE retention (
    tenant TEXT PRIMARY KEY,
    retention_ms INTEGER,           -- from a session's end; NULL: the built-in time
    sensitive_retention_ms INTEGER, -- likewise
    recorded_at INTEGER NOT NULL,
    position INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""


class SettingsProjection:
    """Tables tenant_limits, schemas and retention."""

    name = "settings"
    version = 2
    ddl = _DDL
    tables = ("tenant_limits", "schemas", "retention")

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold a batch of the control log; other partitions hold nothing of it."""
        for position, event in events:
            if isinstance(event, LimitsSet):
                db.execute(
                    f"INSERT OR REPLACE INTO tenant_limits VALUES ({', '.join('?' * 13)})",
                    (
                        event.tenant,
                        event.plan or "",
                        event.max_sessions,
                        event.limit_policy,
                        event.idle_timeout_ms,
                        event.website_idle_timeout_ms,
                        event.ttl_ms,
                        event.sensitive_ttl_ms,
                        event.alert_threshold_percent,
                        json.dumps([[quota.resource, str(quota.limit), quota.period_ms] for quota in event.quotas]),
                        event.recorded_at,
                        event.version,
                        position,
                    ),
                )
            elif isinstance(event, RetentionSet):
                kept = (event.retention_ms, event.sensitive_retention_ms)
                db.execute(
                    "INSERT OR REPLACE INTO retention VALUES (?, ?, ?, ?, ?)",
                    (event.tenant, *kept, event.recorded_at, position),
                )
            elif isinstance(event, SchemaPublished):
                db.execute(
                    "INSERT OR REPLACE INTO schemas VALUES (?, ?, ?, ?, ?)",
                    (event.fingerprint, event.name, event.schema_json, event.recorded_at, position),
                )
