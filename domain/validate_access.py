"""Validation of the commands about access; see `validate`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from session_ledger.domain import commands_access as c
from session_ledger.domain.command import Command
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.rules import DURATION_MS_MAX, Rules, session, user
from session_ledger.domain.shapes import identifier, number, shape, word
from session_ledger.domain.values import check_time

TOKEN_DIGEST_BYTES = 32
GRACE_MS_MAX = 3_600_000  # an hour: what is under way with the replaced token has ended by then


def _token(command: c.IssueAccessToken | c.RotateAccessToken, rules: Rules) -> None:
    session(command, rules)
    _digest(command.token_digest)
    if command.ttl_ms is not None:
        number(command.ttl_ms, "ttl_ms", 1, DURATION_MS_MAX)
    if isinstance(command, c.RotateAccessToken):
        number(command.grace_ms, "grace_ms", 0, GRACE_MS_MAX)


def _digest(value: object) -> None:
    if not isinstance(value, bytes) or len(value) != TOKEN_DIGEST_BYTES:
        raise InvalidInput("token_digest", shape(value), f"must be {TOKEN_DIGEST_BYTES} bytes")


def _authenticate(command: c.Authenticate, rules: Rules) -> None:
    session(command, rules)
    _digest(command.token_digest)
    if command.ip_address is not None:
        word(command.ip_address, "ip_address", rules.id_bytes_max)


def _failure(command: c.ReportAuthenticationFailure, rules: Rules) -> None:
    _success(command, rules)
    word(command.reason, "reason", rules.id_bytes_max)
    if command.ip_address is not None:
        word(command.ip_address, "ip_address", rules.id_bytes_max)
    if command.occurred_at is not None:
        check_time(command.occurred_at, "occurred_at")


def _success(command: c.ReportAuthenticationSuccess | c.ReportAuthenticationFailure, rules: Rules) -> None:
    user(command, rules)
    word(command.method, "method", rules.id_bytes_max)
    if command.session_id is not None:
        identifier(command.session_id, "session_id")


ACCESS_CHECKS: dict[type[Command], Callable[[Any, Rules], None]] = {
    c.IssueAccessToken: _token,
    c.RotateAccessToken: _token,
    c.Authenticate: _authenticate,
    c.ReportAuthenticationFailure: _failure,
    c.ReportAuthenticationSuccess: _success,
}
