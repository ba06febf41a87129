"""Decisions about audits: reveals, reads, leakage findings and alerts, all of them facts in an account's stream."""

from __future__ import annotations

from session_ledger.domain.commands import (
    AcknowledgeLeak,
    Prepared,
    RaiseAlert,
    RecordAuditRead,
    ReportLeak,
    RevealContent,
)
from session_ledger.domain.decision import Context, Decision, NewId, account_head, is_erased, matters_of, nothing_new
from session_ledger.domain.errors import ContentGone, FindingNotFound, TooManyFindings
from session_ledger.domain.events import AlertRaised, AuditRead, ContentRevealed, LeakAcknowledged, LeakFound
from session_ledger.domain.ids import format_id

FINDINGS_MAX = 10_000  # remembered a user, some 1 MB: a repeat of one of them is known again


def reveal_content(context: Context, command: RevealContent, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """ContentRevealed. Whoever asked opens nothing before this is acknowledged, and nothing that was erased.

    Of an erased tenant only what a legal hold keeps.
    """
    if command.session_id is not None and is_erased(context, command.session_id):
        return Decision([], ContentGone(f"session {format_id(command.session_id)} was erased: nothing of it is shown"))
    if context.settings.erased and not matters_of(context, command.session_id):
        gone = f"tenant {command.tenant!r} was erased: nothing of it is shown but what a legal hold keeps"
        return Decision([], ContentGone(gone))
    told = (command.session_id, command.revealed_by, command.reason, command.query_digest, command.fields)
    return Decision([ContentRevealed(*account_head(context, prepared, now, new_id), *told)])


def record_audit_read(
    context: Context, command: RecordAuditRead, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """AuditRead."""
    told = (command.read_by, command.action, command.session_id, command.reason)
    return Decision([AuditRead(*account_head(context, prepared, now, new_id), *told)])


def report_leak(context: Context, command: ReportLeak, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """LeakFound; nothing where the same finding is recorded already."""
    findings = context.account.findings
    if command.finding_id in findings:
        return nothing_new(prepared)
    if len(findings) >= FINDINGS_MAX:
        return Decision([], TooManyFindings(f"{len(findings)} findings of this user are recorded; no more are kept"))
    return Decision(
        [
            LeakFound(
                *account_head(context, prepared, now, new_id),
                command.finding_id,
                command.kind,
                command.severity,
                command.direction,
                command.session_id,
                command.leak_position,
                command.source_tenant,
                command.source_user,
                command.source_session_id,
                command.source_partition,
                command.source_position,
                command.length,
                command.score,
            )
        ]
    )


def acknowledge_leak(
    context: Context, command: AcknowledgeLeak, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """LeakAcknowledged; nothing where it is acknowledged already."""
    acknowledged = context.account.findings.get(command.finding_id)
    if acknowledged is None:
        message = f"finding {command.finding_id.hex()}: no such finding is recorded for this user"
        return Decision([], FindingNotFound(message))
    if acknowledged:
        return nothing_new(prepared)
    told = (command.finding_id, command.acknowledged_by, command.reason)
    return Decision([LeakAcknowledged(*account_head(context, prepared, now, new_id), *told)])


def raise_alert(context: Context, command: RaiseAlert, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """AlertRaised."""
    told = (command.kind, command.severity, command.session_id, command.value, command.threshold)
    return Decision([AlertRaised(*account_head(context, prepared, now, new_id), *told)])
