"""Commands about audits: each records one fact in the stream of the user's account, or (`user` "") of the tenant's."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain.command import UserCommand
from session_ledger.domain.frozen import quick


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RevealContent(UserCommand):
    """Record that content of the user is about to be opened, by whom and why."""

    session_id: bytes | None = None
    """None: content of the account."""
    revealed_by: str
    reason: str
    query_digest: bytes
    """16 bytes."""
    fields: int = 1


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RecordAuditRead(UserCommand):
    """Record that somebody read the audit of a user, or (`user` "") of the whole tenant."""

    read_by: str
    action: str
    session_id: bytes | None = None
    reason: str | None = None


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLeak(UserCommand):
    """Record what a leakage check found in a session of the user; a finding that is known is not recorded again."""

    finding_id: bytes
    """16 bytes."""
    kind: str
    severity: str
    direction: str
    """known or unknown."""
    session_id: bytes
    leak_position: int
    source_tenant: str
    source_user: str
    source_session_id: bytes | None = None
    source_partition: int | None = None
    source_position: int | None = None
    length: int | None = None
    score: Decimal = Decimal(1)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeLeak(UserCommand):
    """Close a finding, with a reason."""

    finding_id: bytes
    acknowledged_by: str
    reason: str


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseAlert(UserCommand):
    """Record that something needs attention; `user` "": something of the whole tenant."""

    kind: str
    severity: str = "warning"
    session_id: bytes | None = None
    value: Decimal | None = None
    threshold: Decimal | None = None
