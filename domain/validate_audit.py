"""Validation of the commands about audits; see `validate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from session_ledger.domain import commands_audit as c
from session_ledger.domain.command import Command, UserCommand
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import SLOTS
from session_ledger.domain.rules import COUNT_MAX, SEVERITIES, Rules, tenant
from session_ledger.domain.shapes import among, identifier, number, shape, word
from session_ledger.domain.values import check_amount


def _user_or_tenant(command: UserCommand, rules: Rules) -> None:
    """Of a user, or (`user` "") of the whole tenant."""
    tenant(command, rules)
    if command.user != "":
        word(command.user, "user", rules.id_bytes_max)


def _digest(value: Any, field: str) -> None:
    if not isinstance(value, bytes) or len(value) != 16:
        raise InvalidInput(field, shape(value), "must be 16 bytes")


def _reveal(command: c.RevealContent, rules: Rules) -> None:
    _user_or_tenant(command, rules)
    if command.session_id is not None:
        identifier(command.session_id, "session_id")
    word(command.revealed_by, "revealed_by", rules.id_bytes_max)
    word(command.reason, "reason", rules.title_bytes_max)
    _digest(command.query_digest, "query_digest")
    number(command.fields, "fields", 1, COUNT_MAX)


def _audit_read(command: c.RecordAuditRead, rules: Rules) -> None:
    _user_or_tenant(command, rules)
    word(command.read_by, "read_by", rules.id_bytes_max)
    word(command.action, "action", rules.id_bytes_max)
    if command.session_id is not None:
        identifier(command.session_id, "session_id")
    if command.reason is not None:
        word(command.reason, "reason", rules.title_bytes_max)


def _report_leak(command: c.ReportLeak, rules: Rules) -> None:
    _user_or_tenant(command, rules)
    _digest(command.finding_id, "finding_id")
    word(command.kind, "kind", rules.id_bytes_max)
    among(command.severity, "severity", SEVERITIES)
    among(command.direction, "direction", ("known", "unknown"))
    identifier(command.session_id, "session_id")
    number(command.leak_position, "leak_position", 1, COUNT_MAX)
    word(command.source_tenant, "source_tenant", rules.id_bytes_max)
    if command.source_user != "":
        word(command.source_user, "source_user", rules.id_bytes_max)
    if command.source_session_id is not None:
        identifier(command.source_session_id, "source_session_id")
    if command.source_partition is not None:
        number(command.source_partition, "source_partition", 0, SLOTS - 1)
    if command.source_position is not None:
        number(command.source_position, "source_position", 1, COUNT_MAX)
    if command.length is not None:
        number(command.length, "length", 0, COUNT_MAX)
    check_amount(command.score, "score")


def _acknowledge_leak(command: c.AcknowledgeLeak, rules: Rules) -> None:
    _user_or_tenant(command, rules)
    _digest(command.finding_id, "finding_id")
    word(command.acknowledged_by, "acknowledged_by", rules.id_bytes_max)
    word(command.reason, "reason", rules.title_bytes_max)


def _raise_alert(command: c.RaiseAlert, rules: Rules) -> None:
    _user_or_tenant(command, rules)
    word(command.kind, "kind", rules.id_bytes_max)
    among(command.severity, "severity", SEVERITIES)
    if command.session_id is not None:
        identifier(command.session_id, "session_id")
    if command.value is not None:
        check_amount(command.value, "value")
    if command.threshold is not None:
        check_amount(command.threshold, "threshold")


AUDIT_CHECKS: dict[type[Command], Callable[[Any, Rules], None]] = {
    c.RevealContent: _reveal,
    c.RecordAuditRead: _audit_read,
    c.ReportLeak: _report_leak,
    c.AcknowledgeLeak: _acknowledge_leak,
    c.RaiseAlert: _raise_alert,
}
