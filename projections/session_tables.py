"""The tables of sessions and what belongs to them. Times are microseconds since the epoch, ids 16 bytes."""

from __future__ import annotations

LIVE, ENDED, EXPIRED, EVICTED, IMPORTED = STATUSES = ("live", "ended", "expired", "evicted", "imported")

TABLES = ("sessions", "session_content", "messages", "session_errors", "authentication_failures")
DDL = """
CREATE TABLE sessions (
    session_id BLOB PRIMARY KEY,
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    status TEXT NOT NULL,           -- live, ended, expired, evicted; imported: history, recorded after the fact
    last_active_at INTEGER NOT NULL,
    due_at INTEGER NOT NULL,        -- when it times out unless something happens before
    messages INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    version INTEGER NOT NULL,       -- of the session's stream
    position INTEGER NOT NULL,      -- of its last event
    partition INTEGER NOT NULL,
    created_position INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    occurred_at INTEGER,
    kind TEXT NOT NULL,
    channel TEXT NOT NULL,
    domain TEXT,
    idle_timeout_ms INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    session_limit INTEGER,
    limit_policy TEXT NOT NULL,
    imported INTEGER NOT NULL,
    import_digest BLOB,
    key_id BLOB,
    key_commitment BLOB,
    metadata TEXT,                  -- JSON object: the part that is in the clear
    ended_at INTEGER,
    end_occurred_at INTEGER,
    end_reason TEXT,
    ended_by TEXT,
    replaced_by BLOB,
    erased_at INTEGER               -- its content is gone since
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_of_user ON sessions (tenant, user, status, last_active_at, session_id);
CREATE INDEX sessions_of_tenant ON sessions (tenant, status, last_active_at, session_id);
CREATE TABLE session_content (
    session_id BLOB NOT NULL,
    field TEXT NOT NULL,            -- title, context, metadata, ip_address, note: as it is now
    event_type TEXT NOT NULL,
    event_id BLOB NOT NULL,
    key_id BLOB,
    sealed BLOB NOT NULL,
    PRIMARY KEY (session_id, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE messages (
    session_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    role TEXT NOT NULL,
    model TEXT,
    tokens_in INTEGER,
    tokens_out INTEGER,
    latency_ms INTEGER,
    audio_duration_ms INTEGER,
    recorded_at INTEGER NOT NULL,
    occurred_at INTEGER,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    event_id BLOB NOT NULL,
    key_id BLOB,
    metadata TEXT,
    sealed_metadata BLOB,
    sealed_content BLOB NOT NULL,
    sealed_parts BLOB,
    sealed_audio_url BLOB,
    PRIMARY KEY (session_id, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE session_errors (
    session_id BLOB NOT NULL,
    position INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    occurred_at INTEGER,
    component TEXT NOT NULL,
    error_type TEXT NOT NULL,
    severity TEXT NOT NULL,
    agent_id BLOB,
    event_id BLOB NOT NULL,
    key_id BLOB,
    sealed_message BLOB,
    PRIMARY KEY (session_id, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE authentication_failures (
    tenant TEXT NOT NULL,
    user TEXT NOT NULL,
    position INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL,
    occurred_at INTEGER,
    session_id BLOB,
    method TEXT NOT NULL,
    reason TEXT NOT NULL,
    event_id BLOB NOT NULL,
    key_id BLOB,
    sealed_ip_address BLOB,
    attempts INTEGER NOT NULL,      -- that the row tells of; the rest is of the last
    PRIMARY KEY (tenant, user, position)
) STRICT, WITHOUT ROWID;
"""
