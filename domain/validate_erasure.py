"""Validation of the commands about erasure and legal holds; see `validate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from session_ledger.domain import commands_erasure as c
from session_ledger.domain.command import Command, SessionCommand, UserCommand
from session_ledger.domain.rules import DURATION_MS_MAX, Rules, session, tenant, user
from session_ledger.domain.shapes import identifier, number, word


def _asked(command: Any, rules: Rules) -> None:
    """Whose it is, who asks, and why."""
    if isinstance(command, SessionCommand):
        session(command, rules)
    elif isinstance(command, UserCommand):
        user(command, rules)
    else:
        tenant(command, rules)
    word(command.requested_by, "requested_by", rules.id_bytes_max)
    word(command.reason, "reason", rules.title_bytes_max)


def _hold(command: c.SetLegalHold | c.LiftLegalHold | c.SetTenantHold | c.LiftTenantHold, rules: Rules) -> None:
    _asked(command, rules)
    word(command.matter, "matter", rules.id_bytes_max)
    if isinstance(command, c.SetLegalHold | c.LiftLegalHold) and command.session_id is not None:
        identifier(command.session_id, "session_id")


def _retention(command: c.SetRetention, rules: Rules) -> None:
    _asked(command, rules)
    for field in ("retention_ms", "sensitive_retention_ms"):
        if getattr(command, field) is not None:
            number(getattr(command, field), field, 1, DURATION_MS_MAX)


ERASURE_CHECKS: dict[type[Command], Callable[[Any, Rules], None]] = {
    c.EraseSession: _asked,
    c.EraseUser: _asked,
    c.EraseTenant: _asked,
    c.SetLegalHold: _hold,
    c.LiftLegalHold: _hold,
    c.SetTenantHold: _hold,
    c.LiftTenantHold: _hold,
    c.SetRetention: _retention,
}
