"""The rules that every log of a ledger keeps, checked record by record.

Memory is bounded by what lives at the same time (open sessions, held agents); what grows with the log (event ids,
versions of streams, batches) stands in a scratch file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from session_ledger.consumers.findings import Findings
from session_ledger.domain.events import (
    AccountEvent,
    AgentAcquired,
    AgentEvent,
    AgentReleased,
    AgentRetired,
    ErrorReported,
    Event,
    KeyRotated,
    MessageAdded,
    QuotaConsumed,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
    SessionUpdated,
    TenantEvent,
)
from session_ledger.domain.ids import format_id, slot_of_id, slot_of_user
from session_ledger.ledger.log.port import Record

CONTROL = -1
_user_slot = lru_cache(maxsize=4096)(slot_of_user)


class _Keys(NamedTuple):
    """Which data keys may seal a session's next event: its key, and the one before, for what was under way."""

    current: bytes | None
    previous: bytes | None = None
    generation: int = 1


class LogRules:
    """Feed it every record of every partition, each partition in order, then `finish`."""

    def __init__(self, findings: Findings, partitions: int, scratch: Path) -> None:
        """`scratch`: a file that does not exist yet and may be deleted afterwards."""
        self._findings = findings
        self._mask = partitions - 1
        self._db = sqlite3.connect(scratch, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE ids (id BLOB, partition INTEGER, position INTEGER)")
        self._db.execute("CREATE TABLE batches (id BLOB, partition INTEGER, position INTEGER)")
        self._db.execute("CREATE TABLE streams (id BLOB PRIMARY KEY, version INTEGER) WITHOUT ROWID")
        self._batch_id: dict[int, bytes] = {}
        self._recorded_at: dict[int, int] = {}
        self._live: dict[tuple[str, str], set[bytes]] = {}
        self._messages: dict[bytes, int] = {}  # of open sessions: live ones, and imports that are not final
        self._keys: dict[bytes, _Keys] = {}  # of the same sessions
        self._held: dict[bytes, bytes] = {}
        self._checks: dict[type[Event], Callable[[int, int, Any], None]] = {
            SessionCreated: self._created,
            SessionUpdated: self._sealed,
            MessageAdded: self._message,
            KeyRotated: self._rotated,
            ErrorReported: self._sealed_or_not,
            SessionEnded: self._ended,
            SessionExpired: self._over,
            SessionEvicted: self._over,
            QuotaConsumed: self._consumed,
            AgentAcquired: self._acquired,
            AgentReleased: self._released,
            AgentRetired: self._retired,
        }

    def close(self) -> None:
        """Close the scratch file."""
        self._db.close()

    def check(self, partition: int, batch: list[tuple[Record, Event | None]]) -> None:
        """Check some records that follow each other; None: the record could not be decoded."""
        ids: list[tuple[bytes, int, int]] = []
        starts: list[tuple[bytes, int, int]] = []
        versions: dict[bytes, int] = {}
        for record, event in batch:
            position = record.position
            if record.batch_id != self._batch_id.get(partition):
                self._batch_id[partition] = record.batch_id
                starts.append((record.batch_id, partition, position))
            self._version(versions, partition, record)
            if event is None:
                continue
            ids.append((event.event_id, partition, position))
            self._framing(partition, record, event)
            if event.recorded_at < self._recorded_at.get(partition, event.recorded_at):
                self._findings.add("clock", "recorded_at goes back", partition, position)
            self._recorded_at[partition] = event.recorded_at
            if isinstance(event, SessionEvent) and not isinstance(event, SessionCreated):
                self._open(partition, position, event)
            check = self._checks.get(type(event))
            if check is not None:
                check(partition, position, event)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO ids VALUES (?, ?, ?)", ids)
        self._db.executemany("INSERT INTO batches VALUES (?, ?, ?)", starts)
        self._db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?)", versions.items())
        self._db.execute("COMMIT")

    def finish(self) -> None:
        """What can be told only at the end: event ids and batch ids that stand twice."""
        for what, table, name in (("event_id", "ids", "event id"), ("batch", "batches", "batch id")):
            for identifier, count, partition, position in self._db.execute(
                f"SELECT id, count(*), partition, max(position) FROM {table} GROUP BY id HAVING count(*) > 1"
            ):
                message = f"{name} {identifier.hex()} stands {count} times"
                self._findings.add(what, message, partition, position)

    # --- framing ----------------------------------------------------------------------------------------------------

    def _version(self, versions: dict[bytes, int], partition: int, record: Record) -> None:
        stream = record.originator_id
        last = versions.get(stream)
        if last is None:
            row = self._db.execute("SELECT version FROM streams WHERE id = ?", (stream,)).fetchone()
            last = 0 if row is None else row[0]
        if record.version != last + 1:
            message = f"version {record.version} of stream {_id(stream)} follows version {last}"
            self._findings.add("version", message, partition, record.position)
        versions[stream] = record.version

    def _framing(self, partition: int, record: Record, event: Event) -> None:
        position = record.position
        if event.originator_id != record.originator_id or event.version != record.version:
            message = (
                f"the record says version {record.version} of stream {_id(record.originator_id)}, "
                f"its value says version {event.version} of {_id(event.originator_id)}"
            )
            self._findings.add("framing", message, partition, position)
        if record.key and record.key != f"{event.tenant}/{event.user}":
            self._findings.add("framing", "the key is not the tenant and user of the value", partition, position)
        place = self._place(event)
        if place != partition:
            self._findings.add(
                "partition", f"{type(event).__name__} belongs into partition {place}", partition, position
            )

    def _place(self, event: Event) -> int:
        if isinstance(event, TenantEvent):
            return CONTROL
        if isinstance(event, (AccountEvent, SessionEvent)):
            return _user_slot(event.tenant, event.user) & self._mask
        assert isinstance(event, AgentEvent)
        return slot_of_id(event.agent_id) & self._mask

    # --- the domain's state -------------------------------------------------------------------------------------------

    def _created(self, partition: int, position: int, event: SessionCreated) -> None:
        if event.session_id in self._messages:
            self._findings.add("session", f"session {_id(event.session_id)} is created twice", partition, position)
        self._messages[event.session_id] = 0
        self._keys[event.session_id] = _Keys(event.key_id)
        if slot_of_id(event.session_id) & self._mask != partition:
            self._findings.add("partition", "the session's id carries another partition's slot", partition, position)
        if event.imported:
            return
        live = self._live.setdefault((event.tenant, event.user), set())
        live.add(event.session_id)
        if event.session_limit is not None and len(live) > event.session_limit:
            message = f"the user has {len(live)} live sessions, the limit that was applied is {event.session_limit}"
            self._findings.add("limit", message, partition, position)

    def _open(self, partition: int, position: int, event: SessionEvent) -> None:
        if event.session_id not in self._messages:
            message = f"{type(event).__name__} of session {_id(event.session_id)}, which is not open"
            self._findings.add("session", message, partition, position)

    def _message(self, partition: int, position: int, event: MessageAdded) -> None:
        self._sealed(partition, position, event)
        count = self._messages.get(event.session_id)
        if count is None:
            return
        if event.message_number != count + 1:
            message = f"message {event.message_number} of session {_id(event.session_id)} follows message {count}"
            self._findings.add("session", message, partition, position)
        self._messages[event.session_id] = event.message_number

    def _sealed(
        self, partition: int, position: int, event: MessageAdded | SessionUpdated | ErrorReported | SessionEnded
    ) -> None:
        keys = self._keys.get(event.session_id)
        if (
            keys is not None
            and event.key_id != keys.current
            and (event.key_id is None or event.key_id != keys.previous)
        ):
            by = "no data key" if event.key_id is None else f"data key {_id(event.key_id)}"
            message = f"{type(event).__name__} of session {_id(event.session_id)} is sealed by {by}, which is not its"
            self._findings.add("key", message, partition, position)

    def _sealed_or_not(self, partition: int, position: int, event: ErrorReported | SessionEnded) -> None:
        if event.key_id is not None:
            self._sealed(partition, position, event)

    def _rotated(self, partition: int, position: int, event: KeyRotated) -> None:
        keys = self._keys.get(event.session_id)
        if keys is None:
            return
        if event.generation <= keys.generation:
            message = f"key generation {event.generation} of session {_id(event.session_id)} follows {keys.generation}"
            self._findings.add("key", message, partition, position)
        self._keys[event.session_id] = _Keys(event.key_id, keys.current, event.generation)

    def _ended(self, partition: int, position: int, event: SessionEnded) -> None:
        self._sealed_or_not(partition, position, event)
        self._over(partition, position, event)

    def _over(self, partition: int, position: int, event: SessionEvent) -> None:
        self._messages.pop(event.session_id, None)
        self._keys.pop(event.session_id, None)
        key = (event.tenant, event.user)
        live = self._live.get(key)
        if live is not None:
            live.discard(event.session_id)
            if not live:
                del self._live[key]

    def _consumed(self, partition: int, position: int, event: QuotaConsumed) -> None:
        if event.used > event.limit:
            message = f"{event.used} of {event.resource} are used, the limit that was applied is {event.limit}"
            self._findings.add("quota", message, partition, position)

    def _acquired(self, partition: int, position: int, event: AgentAcquired) -> None:
        holder = self._held.get(event.agent_id)
        if holder is not None:
            message = f"agent {_id(event.agent_id)} is leased while session {_id(holder)} holds it"
            self._findings.add("agent", message, partition, position)
        self._held[event.agent_id] = event.session_id

    def _released(self, partition: int, position: int, event: AgentReleased) -> None:
        if self._held.pop(event.agent_id, None) != event.session_id:
            message = f"agent {_id(event.agent_id)} is released by a session that does not hold it"
            self._findings.add("agent", message, partition, position)

    def _retired(self, partition: int, position: int, event: AgentRetired) -> None:
        if event.agent_id in self._held:
            message = f"agent {_id(event.agent_id)} is retired while a session holds it"
            self._findings.add("agent", message, partition, position)


def _id(identifier: bytes) -> str:
    return format_id(identifier) if len(identifier) == 16 else identifier.hex()
