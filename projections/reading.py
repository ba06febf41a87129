"""The queries of the read side: each uses an index, each page is bounded, each names tenant and user (or tenant)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from session_ledger.domain.control import RETENTION_MS, SENSITIVE_RETENTION_MS
from session_ledger.domain.session import SENSITIVE
from session_ledger.projections.session_tables import STATUSES

Row = sqlite3.Row
Key = tuple[int, bytes]
"""Where a page of sessions ended: (last_active_at, session_id)."""

SESSION = "SELECT * FROM sessions WHERE session_id = ?1 AND tenant = ?2 AND user = ?3"
OF_USER = "tenant = ?1 AND user = ?2"
OF_TENANT = "tenant = ?1 AND ?2 IS NULL"
_OF_USERS = ("sessions", "quotas", "user_limits", "authentication_failures", "legal_holds")


_TO_ERASE = f"""
WITH kept AS (
    SELECT
        s.tenant, s.user, s.session_id, s.kind, s.ended_at,
        CASE s.kind WHEN '{SENSITIVE}' THEN coalesce(r.sensitive_retention_ms, {SENSITIVE_RETENTION_MS})
        ELSE coalesce(r.retention_ms, {RETENTION_MS}) END AS retention_ms
    FROM sessions AS s LEFT JOIN retention AS r ON r.tenant = s.tenant
    WHERE s.ended_at IS NOT NULL AND s.erased_at IS NULL AND (?1 IS NULL OR s.tenant = ?1)
        AND s.session_id > ?2
)
SELECT
    tenant, user, session_id, kind, ended_at, retention_ms,
    EXISTS (
        SELECT 1 FROM legal_holds AS h WHERE h.tenant = kept.tenant AND h.user IN ('', kept.user)
            AND h.session_id IN (x'', kept.session_id)
    ) AS held
FROM kept WHERE ended_at + retention_ms * 1000 <= ?3 ORDER BY session_id LIMIT ?4
"""


def session(db: sqlite3.Connection, tenant: str, user: str, session_id: bytes) -> Row | None:
    """The session's row, if it is that user's."""
    row: Row | None = _rows(db, SESSION, (session_id, tenant, user)).fetchone()
    return row


def sessions_sql(scope: str, statuses: int, *, paged: bool) -> str:
    """A page, newest activity first: parameters tenant, user, limit, the key (two None: no key), the statuses."""
    after = " AND (last_active_at, session_id) < (?4, ?5)" if paged else ""
    order = "ORDER BY last_active_at DESC, session_id DESC LIMIT ?3"
    parts = [
        f"SELECT * FROM (SELECT * FROM sessions WHERE {scope} AND status = ?{6 + i}{after} {order})"
        for i in range(statuses)
    ]
    return parts[0] if statuses == 1 else f"{' UNION ALL '.join(parts)} {order}"


def sessions(
    db: sqlite3.Connection, tenant: str, user: str | None, status: str | None, limit: int, after: Key | None
) -> list[Row]:
    """Up to `limit` sessions of a user (None: of the tenant's users), of a status (None: of any)."""
    statuses = STATUSES if status is None else (status,)
    sql = sessions_sql(OF_TENANT if user is None else OF_USER, len(statuses), paged=after is not None)
    key = (None, None) if after is None else after
    return _rows(db, sql, (tenant, user, limit, *key, *statuses)).fetchall()


def count_sessions(db: sqlite3.Connection, tenant: str, user: str, statuses: Sequence[str]) -> int:
    """How many sessions of these statuses the user has."""
    marks = ", ".join("?" * len(statuses))
    sql = f"SELECT count(*) FROM sessions WHERE tenant = ? AND user = ? AND status IN ({marks})"
    return int(db.execute(sql, (tenant, user, *statuses)).fetchone()[0])


def current_session(db: sqlite3.Connection, tenant: str, user: str, now: int) -> Row | None:
    """The user's most recently active session that is live and not timed out at `now`."""
    sql = (
        f"SELECT * FROM sessions WHERE {OF_USER} AND status = 'live' AND due_at > ?3"
        " ORDER BY last_active_at DESC, session_id DESC LIMIT 1"
    )
    row: Row | None = _rows(db, sql, (tenant, user, now)).fetchone()
    return row


def content(db: sqlite3.Connection, session_ids: Iterable[bytes]) -> dict[bytes, list[Row]]:
    """Session id to the sealed fields of the session."""
    ids = list(session_ids)
    found: dict[bytes, list[Row]] = {session_id: [] for session_id in ids}
    sql = f"SELECT * FROM session_content WHERE session_id IN ({', '.join('?' * len(ids))})"
    for row in _rows(db, sql, ids):
        found[row["session_id"]].append(row)
    return found


def agents_held(db: sqlite3.Connection, session_ids: Iterable[bytes]) -> dict[bytes, list[bytes]]:
    """Session id to the agent instances that it holds."""
    ids = list(session_ids)
    held: dict[bytes, list[bytes]] = {session_id: [] for session_id in ids}
    sql = f"SELECT held_by, agent_id FROM agents WHERE held_by IN ({', '.join('?' * len(ids))}) ORDER BY agent_id"
    for session_id, agent_id in db.execute(sql, ids):
        held[session_id].append(agent_id)
    return held


def messages(db: sqlite3.Connection, session_id: bytes, after: int, limit: int) -> list[Row]:
    """Up to `limit` messages with numbers above `after`, in order."""
    sql = "SELECT * FROM messages WHERE session_id = ? AND number > ? ORDER BY number LIMIT ?"
    return _rows(db, sql, (session_id, after, limit)).fetchall()


def last_messages(db: sqlite3.Connection, session_id: bytes, last: int) -> list[Row]:
    """The last messages, in order."""
    sql = "SELECT * FROM messages WHERE session_id = ? ORDER BY number DESC LIMIT ?"
    return _rows(db, sql, (session_id, last)).fetchall()[::-1]


def session_errors(db: sqlite3.Connection, session_id: bytes, after: int, limit: int) -> list[Row]:
    """Up to `limit` errors of the session that stand after position `after`, in order."""
    sql = "SELECT * FROM session_errors WHERE session_id = ? AND position > ? ORDER BY position LIMIT ?"
    return _rows(db, sql, (session_id, after, limit)).fetchall()


def authentication_failures(
    db: sqlite3.Connection, tenant: str, user: str | None, before: int | None, limit: int
) -> list[Row]:
    """The user's last failed attempts to authenticate, newest first, before position `before`; None: the tenant's."""
    if user is None:
        sql = (
            "SELECT * FROM authentication_failures WHERE tenant = ?1 ORDER BY recorded_at DESC, position DESC LIMIT ?2"
        )
        return _rows(db, sql, (tenant, limit)).fetchall()
    sql = (
        "SELECT * FROM authentication_failures WHERE tenant = ?1 AND user = ?2 AND position < ?3"
        " ORDER BY position DESC LIMIT ?4"
    )
    return _rows(db, sql, (tenant, user, before or 2**63 - 1, limit)).fetchall()


def legal_holds(db: sqlite3.Connection, tenant: str | None) -> list[Row]:
    """The holds that are set, of a tenant (None: of all), by scope and matter."""
    sql = "SELECT * FROM legal_holds WHERE ?1 IS NULL OR tenant = ?1 ORDER BY tenant, user, session_id, matter"
    return _rows(db, sql, (tenant,)).fetchall()


def user_known(db: sqlite3.Connection, tenant: str, user: str) -> bool:
    """Whether anything is shown of the user: a session, a quota, a limit, a failed authentication or a hold."""
    row = "SELECT 1 FROM {} WHERE tenant = ?1 AND user = ?2"
    rows = " UNION ALL ".join(row.format(table) for table in _OF_USERS)
    return _rows(db, f"{rows} LIMIT 1", (tenant, user)).fetchone() is not None


def to_erase(db: sqlite3.Connection, tenant: str | None, now: int, after: bytes, limit: int) -> list[Row]:
    """Sessions that are over and whose retention is, by id, from behind `after`; `held`: a legal hold keeps it."""
    return _rows(db, _TO_ERASE, (tenant, after, now, limit)).fetchall()


def agents(
    db: sqlite3.Connection, tenant: str, agent_type: str | None, retired: bool, limit: int, after: tuple[str, bytes]
) -> list[Row]:
    """Up to `limit` instances of the tenant, by type and id, after (type, id); retired ones only if asked for."""
    place, order = "(agent_type, agent_id) > (?3, ?4)", "agent_type, agent_id"
    if agent_type is not None:
        place, order = "agent_type = ?2 AND agent_id > ?4 AND ?3 IN ('', ?2)", "agent_id"
    in_service = "" if retired else " AND retired_at IS NULL"
    sql = f"SELECT * FROM agents WHERE tenant = ?1 AND {place}{in_service} ORDER BY {order} LIMIT ?5"
    return _rows(db, sql, (tenant, agent_type, *after, limit)).fetchall()


def position(db: sqlite3.Connection, partition: int) -> int:
    """How far the rows of this snapshot are in the partition."""
    return int(
        db.execute("SELECT coalesce(min(position), 0) FROM positions WHERE partition = ?", (partition,)).fetchone()[0]
    )


def _rows(db: sqlite3.Connection, sql: str, parameters: Sequence[object]) -> sqlite3.Cursor:
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(sql, parameters)
