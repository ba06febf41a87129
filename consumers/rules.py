"""The rules that every log of a ledger keeps, checked record by record.

Memory is bounded by what lives at the same time (open sessions, held agents); what grows with the log (event ids,
versions of streams, batches) stands in a scratch file.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
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
DDL = """
CREATE TABLE IF NOT EXISTS ids (id BLOB, partition INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS batches (id BLOB, partition INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS streams (id BLOB PRIMARY KEY, version INTEGER) WITHOUT ROWID;
"""
_user_slot = lru_cache(maxsize=4096)(slot_of_user)


class _Keys(NamedTuple):
    """Which data keys may seal a session's next event: its key, and the one before, for what was under way."""

    current: bytes | None
    previous: bytes | None = None
    generation: int = 1


def _told(keys: _Keys) -> list[object]:
    current, previous, generation = keys
    return [current and current.hex(), previous and previous.hex(), generation]


def _read(told: list[Any]) -> _Keys:
    current, previous, generation = told
    return _Keys(current and bytes.fromhex(current), previous and bytes.fromhex(previous), generation)


class LogRules:
    """The rules of one partition: feed it every record in order. `duplicates` tells what only all together show."""

    def __init__(self, findings: Findings, partition: int, partitions: int, db: sqlite3.Connection) -> None:
        """`partitions`: how many the log has. `db`: a scratch file with the tables of `DDL`, in a transaction."""
        self._findings = findings
        self._partition = partition
        self._mask = partitions - 1
        self._db = db
        self._batch_id = b""
        self._recorded_at = 0
        self._live: dict[tuple[str, str], set[bytes]] = {}
        self._messages: dict[bytes, int] = {}  # of open sessions: live ones, and imports that are not final
        self._keys: dict[bytes, _Keys] = {}  # of the same sessions
        self._held: dict[bytes, bytes] = {}
        self._checks: dict[type[Event], Callable[[int, Any], None]] = {
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

    def state(self) -> str:
        """What it remembers of the records so far, apart from the scratch file, as JSON."""
        return json.dumps(
            {
                "batch_id": self._batch_id.hex(),
                "recorded_at": self._recorded_at,
                "live": [[*key, [one.hex() for one in live]] for key, live in self._live.items()],
                "messages": {session.hex(): count for session, count in self._messages.items()},
                "keys": {session.hex(): _told(keys) for session, keys in self._keys.items()},
                "held": {agent.hex(): session.hex() for agent, session in self._held.items()},
            }
        )

    def restore(self, state: str) -> None:
        """Go on where another one was."""
        told = json.loads(state)
        self._batch_id, self._recorded_at = bytes.fromhex(told["batch_id"]), told["recorded_at"]
        self._live = {(tenant, user): set(map(bytes.fromhex, live)) for tenant, user, live in told["live"]}
        self._messages = {bytes.fromhex(session): count for session, count in told["messages"].items()}
        self._keys = {bytes.fromhex(session): _read(keys) for session, keys in told["keys"].items()}
        self._held = {bytes.fromhex(agent): bytes.fromhex(session) for agent, session in told["held"].items()}

    def check(self, batch: list[tuple[Record, Event | None]]) -> None:
        """Check some records that follow each other; None: the record could not be decoded."""
        partition = self._partition
        ids: list[tuple[bytes, int, int]] = []
        starts: list[tuple[bytes, int, int]] = []
        versions: dict[bytes, int] = {}
        for record, event in batch:
            position = record.position
            if record.batch_id != self._batch_id:
                self._batch_id = record.batch_id
                starts.append((record.batch_id, partition, position))
            self._version(versions, record)
            if event is None:
                continue
            ids.append((event.event_id, partition, position))
            self._framing(record, event)
            if event.recorded_at < self._recorded_at:
                self._add("clock", "recorded_at goes back", position)
            self._recorded_at = event.recorded_at
            if isinstance(event, SessionEvent) and not isinstance(event, SessionCreated):
                self._open(position, event)
            check = self._checks.get(type(event))
            if check is not None:
                check(position, event)
        self._db.executemany("INSERT INTO ids VALUES (?, ?, ?)", ids)
        self._db.executemany("INSERT INTO batches VALUES (?, ?, ?)", starts)
        self._db.executemany("INSERT OR REPLACE INTO streams VALUES (?, ?)", versions.items())

    def _add(self, what: str, message: str, position: int) -> None:
        self._findings.add(what, message, self._partition, position)

    # --- framing ----------------------------------------------------------------------------------------------------

    def _version(self, versions: dict[bytes, int], record: Record) -> None:
        stream = record.originator_id
        last = versions.get(stream)
        if last is None:
            row = self._db.execute("SELECT version FROM streams WHERE id = ?", (stream,)).fetchone()
            last = 0 if row is None else row[0]
        if record.version != last + 1:
            message = f"version {record.version} of stream {_id(stream)} follows version {last}"
            self._add("version", message, record.position)
        versions[stream] = record.version

    def _framing(self, record: Record, event: Event) -> None:
        position = record.position
        if event.originator_id != record.originator_id or event.version != record.version:
            message = (
                f"the record says version {record.version} of stream {_id(record.originator_id)}, "
                f"its value says version {event.version} of {_id(event.originator_id)}"
            )
            self._add("framing", message, position)
        if record.key and record.key != f"{event.tenant}/{event.user}":
            self._add("framing", "the key is not the tenant and user of the value", position)
        place = self._place(event)
        if place != self._partition:
            self._add("partition", f"{type(event).__name__} belongs into partition {place}", position)

    def _place(self, event: Event) -> int:
        if isinstance(event, TenantEvent):
            return CONTROL
        if isinstance(event, (AccountEvent, SessionEvent)):
            return _user_slot(event.tenant, event.user) & self._mask
        assert isinstance(event, AgentEvent)
        return slot_of_id(event.agent_id) & self._mask

    # --- the domain's state -------------------------------------------------------------------------------------------

    def _created(self, position: int, event: SessionCreated) -> None:
        if event.session_id in self._messages:
            self._add("session", f"session {_id(event.session_id)} is created twice", position)
        self._messages[event.session_id] = 0
        self._keys[event.session_id] = _Keys(event.key_id)
        if slot_of_id(event.session_id) & self._mask != self._partition:
            self._add("partition", "the session's id carries another partition's slot", position)
        if event.imported:
            return
        live = self._live.setdefault((event.tenant, event.user), set())
        live.add(event.session_id)
        if event.session_limit is not None and len(live) > event.session_limit:
            message = f"the user has {len(live)} live sessions, the limit that was applied is {event.session_limit}"
            self._add("limit", message, position)

    def _open(self, position: int, event: SessionEvent) -> None:
        if event.session_id not in self._messages:
            message = f"{type(event).__name__} of session {_id(event.session_id)}, which is not open"
            self._add("session", message, position)

    def _message(self, position: int, event: MessageAdded) -> None:
        self._sealed(position, event)
        count = self._messages.get(event.session_id)
        if count is None:
            return
        if event.message_number != count + 1:
            message = f"message {event.message_number} of session {_id(event.session_id)} follows message {count}"
            self._add("session", message, position)
        self._messages[event.session_id] = event.message_number

    def _sealed(self, position: int, event: MessageAdded | SessionUpdated | ErrorReported | SessionEnded) -> None:
        keys = self._keys.get(event.session_id)
        if (
            keys is not None
            and event.key_id != keys.current
            and (event.key_id is None or event.key_id != keys.previous)
        ):
            by = "no data key" if event.key_id is None else f"data key {_id(event.key_id)}"
            message = f"{type(event).__name__} of session {_id(event.session_id)} is sealed by {by}, which is not its"
            self._add("key", message, position)

    def _sealed_or_not(self, position: int, event: ErrorReported | SessionEnded) -> None:
        if event.key_id is not None:
            self._sealed(position, event)

    def _rotated(self, position: int, event: KeyRotated) -> None:
        keys = self._keys.get(event.session_id)
        if keys is None:
            return
        if event.generation <= keys.generation:
            message = f"key generation {event.generation} of session {_id(event.session_id)} follows {keys.generation}"
            self._add("key", message, position)
        self._keys[event.session_id] = _Keys(event.key_id, keys.current, event.generation)

    def _ended(self, position: int, event: SessionEnded) -> None:
        self._sealed_or_not(position, event)
        self._over(position, event)

    def _over(self, position: int, event: SessionEvent) -> None:
        self._messages.pop(event.session_id, None)
        self._keys.pop(event.session_id, None)
        key = (event.tenant, event.user)
        live = self._live.get(key)
        if live is not None:
            live.discard(event.session_id)
            if not live:
                del self._live[key]

    def _consumed(self, position: int, event: QuotaConsumed) -> None:
        if event.used > event.limit:
            message = f"{event.used} of {event.resource} are used, the limit that was applied is {event.limit}"
            self._add("quota", message, position)

    def _acquired(self, position: int, event: AgentAcquired) -> None:
        holder = self._held.get(event.agent_id)
        if holder is not None:
            message = f"agent {_id(event.agent_id)} is leased while session {_id(holder)} holds it"
            self._add("agent", message, position)
        self._held[event.agent_id] = event.session_id

    def _released(self, position: int, event: AgentReleased) -> None:
        if self._held.pop(event.agent_id, None) != event.session_id:
            message = f"agent {_id(event.agent_id)} is released by a session that does not hold it"
            self._add("agent", message, position)

    def _retired(self, position: int, event: AgentRetired) -> None:
        if event.agent_id in self._held:
            message = f"agent {_id(event.agent_id)} is retired while a session holds it"
            self._add("agent", message, position)


def duplicates(scratches: Sequence[Path], findings: Findings) -> None:
    """What only all partitions together show: event ids and batch ids that stand twice, in whichever scratch files."""
    db = sqlite3.connect("file::memory:", uri=True)
    try:
        for number, scratch in enumerate(scratches):
            db.execute("ATTACH ? AS ?", (f"{scratch.absolute().as_uri()}?mode=ro", f"s{number}"))
        for what, table, name in (("event_id", "ids", "event id"), ("batch", "batches", "batch id")):
            every = " UNION ALL ".join(f"SELECT * FROM s{number}.{table}" for number in range(len(scratches)))
            for identifier, count, partition, position in db.execute(
                f"SELECT id, count(*), partition, max(position) FROM ({every}) GROUP BY id HAVING count(*) > 1"
            ):
                findings.add(what, f"{name} {identifier.hex()} stands {count} times", partition, position)
    finally:
        db.close()


def _id(identifier: bytes) -> str:
    return format_id(identifier) if len(identifier) == 16 else identifier.hex()
