"""The facade's commands about audits."""

from __future__ import annotations

from decimal import Decimal

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.ids import parse_id
from session_ledger.domain.values import amount as exact
from session_ledger.ledger.methods import Amount, Commands, Id, optional_id


class AuditMethods(Commands):
    """Reveals, reads, leakage findings and alerts. `user` "": the fact is about the whole tenant."""

    def reveal_content(
        self,
        tenant: str,
        user: str,
        *,
        session_id: Id | None = None,
        revealed_by: str,
        reason: str,
        query_digest: bytes,
        fields: int = 1,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record that content is about to be opened; whoever reveals opens nothing before this has returned.

        `session_id` None: content of the account. `query_digest`: 16 bytes that tell which reveals belong together.
        Raises ContentGone where the session was erased: then nothing of it is to be shown, though a key may be there.
        """
        command = c.RevealContent(
            tenant=tenant,
            user=user,
            session_id=optional_id(session_id, "session_id"),
            revealed_by=revealed_by,
            reason=reason,
            query_digest=query_digest,
            fields=fields,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def record_audit_read(
        self,
        tenant: str,
        user: str,
        *,
        read_by: str,
        action: str,
        session_id: Id | None = None,
        reason: str | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record that somebody read the audit of a user or tenant. `action`: timeline, state, diff, access, leaks."""
        command = c.RecordAuditRead(
            tenant=tenant,
            user=user,
            read_by=read_by,
            action=action,
            session_id=optional_id(session_id, "session_id"),
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def report_leak(
        self,
        tenant: str,
        user: str,
        *,
        finding_id: bytes,
        kind: str,
        severity: str,
        session_id: Id,
        leak_position: int,
        source_tenant: str,
        source_user: str,
        source_session_id: Id | None = None,
        source_partition: int | None = None,
        source_position: int | None = None,
        direction: str = "known",
        length: int | None = None,
        score: Amount = Decimal(1),
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record a finding of a leakage check in a session of the user; one that is known is not recorded again.

        `finding_id`: 16 bytes. Raises TooManyFindings.
        """
        command = c.ReportLeak(
            tenant=tenant,
            user=user,
            finding_id=finding_id,
            kind=kind,
            severity=severity,
            direction=direction,
            session_id=parse_id(session_id, "session_id"),
            leak_position=leak_position,
            source_tenant=source_tenant,
            source_user=source_user,
            source_session_id=optional_id(source_session_id, "source_session_id"),
            source_partition=source_partition,
            source_position=source_position,
            length=length,
            score=exact(score, "score"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def acknowledge_leak(
        self,
        tenant: str,
        user: str,
        finding_id: bytes,
        *,
        acknowledged_by: str,
        reason: str,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Close a finding, with a reason. Raises FindingNotFound."""
        command = c.AcknowledgeLeak(
            tenant=tenant,
            user=user,
            finding_id=finding_id,
            acknowledged_by=acknowledged_by,
            reason=reason,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def raise_alert(
        self,
        tenant: str,
        user: str,
        *,
        kind: str,
        severity: str = "warning",
        session_id: Id | None = None,
        value: Amount | None = None,
        threshold: Amount | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Record that something needs attention."""
        command = c.RaiseAlert(
            tenant=tenant,
            user=user,
            kind=kind,
            severity=severity,
            session_id=optional_id(session_id, "session_id"),
            value=None if value is None else exact(value, "value"),
            threshold=None if threshold is None else exact(threshold, "threshold"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)
