"""Sessions as they stand, their messages and what failed in them. Content stays ciphertext, as it is in the log.

A batch is gathered into one change a session first, so a session costs one insert or update a batch, whatever number of
messages the batch has for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AuthenticationFailed,
    ContentErased,
    ErrorReported,
    Event,
    KeyRotated,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
    SessionUpdated,
)
from session_ledger.domain.ids import format_id
from session_ledger.projections.erased import erase
from session_ledger.projections.session_tables import DDL, ENDED, EVICTED, EXPIRED, IMPORTED, LIVE, TABLES

_SESSION_COLUMNS = 34
_INSERT_SESSION = f"INSERT INTO sessions VALUES ({', '.join('?' * _SESSION_COLUMNS)})"
INTEGER_MAX = 2**63 - 1  # what SQLite holds; counts stop there, for a caller may report any number of tokens
_COUNT = f"""
UPDATE sessions SET
    version = ?1, position = ?2, messages = messages + ?3, tokens_in = min(tokens_in + ?4, {INTEGER_MAX}),
    tokens_out = min(tokens_out + ?5, {INTEGER_MAX}), errors = errors + ?6"""
_WHERE = " WHERE session_id = ?7 AND version < ?8"
_COUNT_SESSION = _COUNT + _WHERE
_TOUCH_SESSION = _COUNT + ", last_active_at = ?9, due_at = min(?9 + idle_timeout_ms * 1000, expires_at)" + _WHERE
_END_SESSION = """
UPDATE sessions SET
    status = CASE WHEN imported AND ?1 = 'ended' THEN 'imported' ELSE ?1 END,
    ended_at = ?2, end_occurred_at = ?3, end_reason = ?4, ended_by = ?5, replaced_by = ?6
WHERE session_id = ?7"""


class _Change:
    """What one batch does to one session."""

    __slots__ = (
        "created",
        "end",
        "errors",
        "first_version",
        "messages",
        "metadata",
        "position",
        "tokens_in",
        "tokens_out",
        "touched_at",
        "version",
    )

    def __init__(self, first_version: int) -> None:
        self.first_version = first_version
        self.created: tuple[int, SessionCreated] | None = None
        self.end: tuple[object, ...] | None = None  # status, ended_at, occurred_at, reason, by, replaced_by
        self.metadata: dict[str, str] | None = None
        self.touched_at: int | None = None
        self.messages = self.tokens_in = self.tokens_out = self.errors = self.position = self.version = 0


class _Batch:
    """The gathered changes of a batch."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.changes: dict[bytes, _Change] = {}
        self.content: dict[tuple[bytes, str], tuple[object, ...] | None] = {}
        self.messages: list[tuple[object, ...]] = []
        self.errors: list[tuple[object, ...]] = []
        self.failures: list[tuple[object, ...]] = []
        self.erasures: list[tuple[int, ContentErased]] = []

    def change(self, position: int, event: SessionEvent) -> _Change:
        change = self.changes.get(event.session_id)
        if change is None:
            change = self.changes[event.session_id] = _Change(event.version)
        elif event.version <= change.version:
            raise _repeated(position, event)
        change.position = position
        change.version = event.version
        return change

    def seal(self, event: SessionCreated | SessionUpdated | SessionEnded, field: str, sealed: bytes | None) -> None:
        if sealed is not None:
            row = (event.session_id, field, type(event).__name__, event.event_id, event.key_id, sealed)
            self.content[event.session_id, field] = row


def _repeated(position: int, event: SessionEvent) -> LogCorrupt:
    return LogCorrupt(
        f"position {position}: {type(event).__name__} version {event.version} of session "
        f"{format_id(event.session_id)} comes after a later version"
    )


def _created(batch: _Batch, position: int, event: SessionCreated) -> None:
    change = batch.change(position, event)
    change.created = (position, event)
    change.metadata = event.metadata
    change.touched_at = event.recorded_at
    batch.seal(event, "title", event.sealed_title)
    batch.seal(event, "context", event.sealed_context)
    batch.seal(event, "metadata", event.sealed_metadata)
    batch.seal(event, "ip_address", event.sealed_ip_address)


def _updated(batch: _Batch, position: int, event: SessionUpdated) -> None:
    change = batch.change(position, event)
    change.touched_at = event.recorded_at
    batch.seal(event, "title", event.sealed_title)
    batch.seal(event, "context", event.sealed_context)
    if event.metadata is not None:
        change.metadata = event.metadata
        batch.content[event.session_id, "metadata"] = None  # the update replaces the sealed part too
    batch.seal(event, "metadata", event.sealed_metadata)


def _message(batch: _Batch, position: int, event: MessageAdded) -> None:
    session_id = event.session_id
    change = batch.changes.get(session_id)
    if change is None:
        change = batch.changes[session_id] = _Change(event.version)
    elif event.version <= change.version:
        raise _repeated(position, event)
    change.position = position
    change.version = event.version
    change.touched_at = event.recorded_at
    change.messages += 1
    if event.tokens_in:
        change.tokens_in += event.tokens_in
    if event.tokens_out:
        change.tokens_out += event.tokens_out
    batch.messages.append(
        (
            session_id,
            event.message_number,
            event.role,
            event.model,
            event.tokens_in,
            event.tokens_out,
            event.latency_ms,
            event.audio_duration_ms,
            event.recorded_at,
            event.occurred_at,
            batch.partition,
            position,
            event.event_id,
            event.key_id,
            _json(event.metadata) if event.metadata else None,
            event.sealed_metadata,
            event.sealed_content,
            event.sealed_parts,
            event.sealed_audio_url,
        )
    )


def _ended(batch: _Batch, position: int, event: SessionEnded) -> None:
    change = batch.change(position, event)
    change.end = (ENDED, event.recorded_at, event.occurred_at, event.reason, event.ended_by, None)
    batch.seal(event, "note", event.sealed_note)


def _expired(batch: _Batch, position: int, event: SessionExpired) -> None:
    change = batch.change(position, event)
    change.end = (EXPIRED, event.recorded_at, event.due_at, event.reason, "system", None)


def _evicted(batch: _Batch, position: int, event: SessionEvicted) -> None:
    change = batch.change(position, event)
    change.end = (EVICTED, event.recorded_at, None, "evicted", "system", event.replaced_by)


def _noted(batch: _Batch, position: int, event: KeyRotated | AccessTokenIssued | AccessTokenRotated) -> None:
    batch.change(position, event)  # its version counts; by which key a field is sealed stands beside the field


def _error(batch: _Batch, position: int, event: ErrorReported) -> None:
    batch.change(position, event).errors += 1
    batch.errors.append(
        (
            event.session_id,
            position,
            batch.partition,
            event.recorded_at,
            event.occurred_at,
            event.component,
            event.error_type,
            event.severity,
            event.agent_id,
            event.event_id,
            event.key_id,
            event.sealed_message,
        )
    )


def _failed(batch: _Batch, position: int, event: AuthenticationFailed) -> None:
    batch.failures.append(
        (
            event.tenant,
            event.user,
            position,
            batch.partition,
            event.recorded_at,
            event.occurred_at,
            event.session_id,
            event.method,
            event.reason,
            event.event_id,
            event.key_id,
            event.sealed_ip_address,
            event.attempts,
        )
    )


def _erased(batch: _Batch, position: int, event: ContentErased) -> None:
    batch.erasures.append((position, event))


_Gather = Callable[[_Batch, int, Any], None]
_GATHER: dict[type[Event], _Gather] = {
    SessionCreated: _created,
    SessionUpdated: _updated,
    MessageAdded: _message,
    SessionEnded: _ended,
    SessionExpired: _expired,
    SessionEvicted: _evicted,
    KeyRotated: _noted,
    AccessTokenIssued: _noted,
    AccessTokenRotated: _noted,
    ErrorReported: _error,
    AuthenticationFailed: _failed,
    ContentErased: _erased,
}


class SessionsProjection:
    """Tables sessions, session_content, messages, session_errors and authentication_failures."""

    name = "sessions"
    version = 3
    ddl = DDL
    tables = TABLES

    def apply(self, db: sqlite3.Connection, partition: int, events: Sequence[tuple[int, Event]]) -> None:
        """Fold a batch; raises LogCorrupt for an event of a session that was never created."""
        batch = _Batch(partition)
        gather = _GATHER
        for position, event in events:
            handler = gather.get(type(event))
            if handler is not None:
                handler(batch, position, event)
        _write(db, batch)


def _write(db: sqlite3.Connection, batch: _Batch) -> None:
    created, counted, touched, ended, metadata = [], [], [], [], []
    for session_id, change in batch.changes.items():
        if change.created is not None:
            created.append(_row(batch.partition, *change.created, change))
        else:
            tokens = (min(change.tokens_in, INTEGER_MAX), min(change.tokens_out, INTEGER_MAX))
            counts = (change.messages, *tokens, change.errors)
            update = (change.version, change.position, *counts, session_id, change.first_version)
            if change.touched_at is None:
                counted.append(update)
            else:
                touched.append((*update, change.touched_at))
            if change.metadata is not None:
                metadata.append((_json(change.metadata) if change.metadata else None, session_id))
        if change.end is not None:
            ended.append((*change.end, session_id))
    if created:
        db.executemany(_INSERT_SESSION, created)
    for statement, updates in ((_COUNT_SESSION, counted), (_TOUCH_SESSION, touched)):
        if updates and db.executemany(statement, updates).rowcount != len(updates):
            last = max(change.position for change in batch.changes.values())
            raise LogCorrupt(
                f"partition {batch.partition}, up to position {last}: "
                "a session has events but was never created, or has them twice"
            )
    if metadata:
        db.executemany("UPDATE sessions SET metadata = ? WHERE session_id = ?", metadata)
    if ended:
        db.executemany(_END_SESSION, ended)
    if batch.content:
        _write_content(db, batch.content)
    if batch.messages:
        db.executemany(f"INSERT INTO messages VALUES ({', '.join('?' * 19)})", batch.messages)
    if batch.errors:
        db.executemany(f"INSERT INTO session_errors VALUES ({', '.join('?' * 12)})", batch.errors)
    if batch.failures:
        db.executemany(f"INSERT INTO authentication_failures VALUES ({', '.join('?' * 13)})", batch.failures)
    for position, event in batch.erasures:  # at last: each looks at positions, and nothing of an erased session follows
        erase(db, position, event)


def _write_content(db: sqlite3.Connection, content: dict[tuple[bytes, str], tuple[object, ...] | None]) -> None:
    gone = [place for place, row in content.items() if row is None]
    if gone:
        db.executemany("DELETE FROM session_content WHERE session_id = ? AND field = ?", gone)
    db.executemany(
        "INSERT INTO session_content VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " event_type = excluded.event_type, event_id = excluded.event_id, key_id = excluded.key_id,"
        " sealed = excluded.sealed",
        [row for row in content.values() if row is not None],
    )


def _row(partition: int, position: int, event: SessionCreated, change: _Change) -> tuple[object, ...]:
    last_active_at = event.recorded_at if change.touched_at is None else change.touched_at
    return (
        event.session_id,
        event.tenant,
        event.user,
        IMPORTED if event.imported else LIVE,
        last_active_at,
        min(last_active_at + event.idle_timeout_ms * 1000, event.expires_at),
        change.messages,
        min(change.tokens_in, INTEGER_MAX),
        min(change.tokens_out, INTEGER_MAX),
        change.errors,
        change.version,
        change.position,
        partition,
        position,
        event.recorded_at,
        event.occurred_at,
        event.kind,
        event.channel,
        event.domain,
        event.idle_timeout_ms,
        event.expires_at,
        event.session_limit,
        event.limit_policy,
        int(event.imported),
        event.import_digest,
        event.key_id,
        event.key_commitment,
        _json(change.metadata) if change.metadata else None,
        None,
        None,
        None,
        None,
        None,
        None,
    )


def _json(metadata: dict[str, str]) -> str:
    return json.dumps(metadata, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
