"""Facts about audits: what was revealed and read, leakage findings and alerts; see `events` for the shapes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import AccountEvent


@quick
@dataclass(frozen=True, slots=True)
class ContentRevealed(AccountEvent):
    """Somebody is about to be shown content of the user: recorded before anything is opened."""

    session_id: bytes | None
    """None: content of the account."""
    revealed_by: str
    reason: str
    """In the revealer's words; readable by everybody who reads the ledger, so it should name no person."""
    query_digest: bytes
    """BLAKE2b of the query that asks for it, 16 bytes: the reveals of one query are told by it."""
    fields: int
    """How many fields are opened."""


@quick
@dataclass(frozen=True, slots=True)
class AuditRead(AccountEvent):
    """Somebody read the audit of a user, or (`user` "") of the whole tenant."""

    read_by: str
    action: str
    """timeline, state, diff, access, leaks, or another."""
    session_id: bytes | None
    reason: str | None


@quick
@dataclass(frozen=True, slots=True)
class LeakFound(AccountEvent):
    """A leakage check found something of another session in a session of this user."""

    finding_id: bytes
    """16 bytes: the same leak, found again, has the same; it is recorded once."""
    kind: str
    severity: str
    """warning, error or critical."""
    direction: str
    """known, or unknown where it can not be told which of the two was first."""
    session_id: bytes
    """Where it came to light."""
    leak_position: int
    """Of the event there, in this partition."""
    source_tenant: str
    source_user: str
    source_session_id: bytes | None
    source_partition: int | None
    source_position: int | None
    length: int | None
    """Characters that both share, normalized."""
    score: Decimal
    """0 to 1: how much of it is shared."""


@quick
@dataclass(frozen=True, slots=True)
class LeakAcknowledged(AccountEvent):
    """Somebody has looked at a finding and says what it is; it is open no more."""

    finding_id: bytes
    acknowledged_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True)
class AlertRaised(AccountEvent):
    """Something about the user, one of the sessions or (`user` "") the tenant needs somebody's attention."""

    kind: str
    severity: str
    """warning, error or critical."""
    session_id: bytes | None
    value: Decimal | None
    """What was measured."""
    threshold: Decimal | None
    """What it may be."""
