"""Validation at the edge of the domain: every field of a command, before anything is sealed or queued.

Each failure is `InvalidInput` with the field, the shape of the value and the rule; a value itself is never repeated,
for it may be what somebody said. A wrong type is such a failure too, never a TypeError later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from session_ledger.domain import commands as c
from session_ledger.domain.agents import RESETS
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import slot_of_id, slot_of_user
from session_ledger.domain.rules import COUNT_MAX, DURATION_MS_MAX, SEVERITIES, Rules, session, tenant, user
from session_ledger.domain.session import CHANNELS, IMPORTED, KINDS, POLICIES, SENSITIVE, SENSITIVE_TTL_MS_MAX
from session_ledger.domain.shapes import (
    among,
    flag,
    identifier,
    json_value,
    metadata,
    number,
    shape,
    text,
    uuid7,
    word,
    words,
)
from session_ledger.domain.validate_access import ACCESS_CHECKS
from session_ledger.domain.validate_audit import AUDIT_CHECKS
from session_ledger.domain.validate_erasure import ERASURE_CHECKS
from session_ledger.domain.values import amount, check_amount, check_time, time_us

__all__ = ["Rules", "amount", "time_us", "validate"]

PERIOD_MS_MIN, PERIOD_MS_MAX = 1_000, 366 * 86_400_000
SCHEMA_NAME_BYTES_MAX, SCHEMA_BYTES_MAX = 256, 1024 * 1024  # the ledger's own, whatever callers are limited to


def validate(command: c.Command, rules: Rules) -> None:
    """Raises InvalidInput for the first field that breaks a rule."""
    check = _CHECKS.get(type(command))
    if check is None:
        raise InvalidInput(
            "command", f"a {type(command).__name__}", "must be a command of session_ledger.domain.commands"
        )
    if command.command_id is not None:
        uuid7(command.command_id, "command_id")
    check(command, rules)


def _add_message(command: c.AddMessage, rules: Rules) -> None:
    session(command, rules)
    _message(command, rules, "")


def _message(message: c.AddMessage | c.ImportedMessage, rules: Rules, where: str) -> None:
    content = message.content
    if (
        content.__class__ is not str
        or not content.isascii()
        or len(content) > rules.content_bytes_max
        or "\x00" in content
    ):
        text(content, where + "content", rules.content_bytes_max)
    word(message.role, where + "role", rules.id_bytes_max)
    if message.metadata.__class__ is not dict or message.metadata:
        metadata(message.metadata, where + "metadata", rules.metadata_bytes_max)
    if message.occurred_at is not None:
        check_time(message.occurred_at, where + "occurred_at")
    if message.model is not None:
        word(message.model, where + "model", rules.id_bytes_max)
    if message.tokens_in is not None:
        number(message.tokens_in, where + "tokens_in", 0, COUNT_MAX)
    if message.tokens_out is not None:
        number(message.tokens_out, where + "tokens_out", 0, COUNT_MAX)
    if message.latency_ms is not None:
        number(message.latency_ms, where + "latency_ms", 0, COUNT_MAX)
    if message.audio_duration_ms is not None:
        number(message.audio_duration_ms, where + "audio_duration_ms", 0, COUNT_MAX)
    if message.audio_url is not None:
        text(message.audio_url, where + "audio_url", rules.url_bytes_max)
    if message.agent_id is not None:
        identifier(message.agent_id, where + "agent_id")
    if message.tokens_cached is not None:
        _part(message.tokens_cached, where + "tokens_cached", message.tokens_in, "tokens_in")
    if message.tokens_reasoning is not None:
        _part(message.tokens_reasoning, where + "tokens_reasoning", message.tokens_out, "tokens_out")
    if message.topic is not None:
        word(message.topic, where + "topic", rules.id_bytes_max)
    if message.shared_source is not None:
        word(message.shared_source, where + "shared_source", rules.id_bytes_max)
    if message.parts is not None:
        if not isinstance(message.parts, list | tuple):
            raise InvalidInput(where + "parts", shape(message.parts), "must be a list")
        json_value(message.parts, where + "parts", rules.parts_bytes_max)


def _part(value: Any, field: str, whole: int | None, name: str) -> None:
    number(value, field, 0, COUNT_MAX)
    if whole is None or value > whole:
        raise InvalidInput(field, f"{value}, with {name} {whole}", f"must be at most {name}, of which it is a part")


def _texts(command: c.CreateSession | c.UpdateSession | c.ImportSession, rules: Rules) -> None:
    if command.title is not None:
        text(command.title, "title", rules.title_bytes_max)
    if command.context is not None:
        json_value(command.context, "context", rules.context_bytes_max)
    if command.occurred_at is not None:
        check_time(command.occurred_at, "occurred_at")


def _kind(command: c.CreateSession | c.ImportSession, rules: Rules) -> None:
    among(command.kind, "kind", KINDS)
    among(command.channel, "channel", CHANNELS)
    if command.domain is not None:
        word(command.domain, "domain", rules.id_bytes_max)
    metadata(command.metadata, "metadata", rules.metadata_bytes_max)


def _create_session(command: c.CreateSession, rules: Rules) -> None:
    user(command, rules)
    _kind(command, rules)
    _texts(command, rules)
    if command.ip_address is not None:
        word(command.ip_address, "ip_address", rules.id_bytes_max)
    if command.idle_timeout_ms is not None:
        number(command.idle_timeout_ms, "idle_timeout_ms", 1, DURATION_MS_MAX)
    if command.ttl_ms is not None:
        number(command.ttl_ms, "ttl_ms", 1, SENSITIVE_TTL_MS_MAX if command.kind == SENSITIVE else DURATION_MS_MAX)
    flag(command.reuse, "reuse")


def _update_session(command: c.UpdateSession, rules: Rules) -> None:
    session(command, rules)
    _texts(command, rules)
    if command.metadata is not None:
        metadata(command.metadata, "metadata", rules.metadata_bytes_max)
    elif command.title is None and command.context is None:
        raise InvalidInput("title, context, metadata", "none of them", "at least one must be given")


def _end_session(command: c.EndSession, rules: Rules) -> None:
    session(command, rules)
    word(command.reason, "reason", rules.id_bytes_max)
    if command.reason == IMPORTED:
        raise InvalidInput("reason", f"the word {IMPORTED}", "is what imports end with: choose another word")
    among(command.ended_by, "ended_by", ("user", "admin", "system"))
    if command.note is not None:
        text(command.note, "note", rules.note_bytes_max)
    if command.occurred_at is not None:
        check_time(command.occurred_at, "occurred_at")


def _report_error(command: c.ReportError, rules: Rules) -> None:
    session(command, rules)
    word(command.component, "component", rules.id_bytes_max)
    word(command.error_type, "error_type", rules.id_bytes_max)
    among(command.severity, "severity", SEVERITIES)
    if command.message is not None:
        text(command.message, "message", rules.note_bytes_max)
    if command.agent_id is not None:
        identifier(command.agent_id, "agent_id")
    if command.occurred_at is not None:
        check_time(command.occurred_at, "occurred_at")


def _rotate_session_key(command: c.RotateSessionKey, rules: Rules) -> None:
    session(command, rules)
    word(command.reason, "reason", rules.id_bytes_max)


def _import_session(command: c.ImportSession, rules: Rules) -> None:
    user(command, rules)
    uuid7(command.session_id, "session_id")
    slot = slot_of_id(command.session_id)
    if slot != slot_of_user(command.tenant, command.user):  # all of one user stands in one partition
        rule = "must carry its user's slot, as domain.ids.derived_session_id makes it"
        raise InvalidInput("session_id", f"an id with slot {slot}", rule)
    _kind(command, rules)
    _texts(command, rules)
    if command.ended_at is not None:
        check_time(command.ended_at, "ended_at")
    text(command.source, "source", rules.url_bytes_max)
    flag(command.final, "final")
    number(command.first_message, "first_message", 1, COUNT_MAX)
    messages = command.messages
    if not isinstance(messages, tuple | list):
        raise InvalidInput("messages", shape(messages), "must be a tuple of ImportedMessage")
    if len(messages) > rules.import_messages_max:
        rule = f"at most {rules.import_messages_max} in one command; send the rest with first_message"
        raise InvalidInput("messages", f"{len(messages)} messages", rule)
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if not isinstance(message, c.ImportedMessage):
            raise InvalidInput(where, shape(message), "must be an ImportedMessage")
        _message(message, rules, where + ".")


def _set_quota(command: c.SetQuota, rules: Rules) -> None:
    user(command, rules)
    word(command.resource, "resource", rules.id_bytes_max)
    if command.limit is not None:
        check_amount(command.limit, "limit")
    number(command.period_ms, "period_ms", PERIOD_MS_MIN, PERIOD_MS_MAX)


def _consume_quota(command: c.ConsumeQuota, rules: Rules) -> None:
    _check_quota(command, rules)
    flag(command.reserve, "reserve")
    if command.session_id is not None:
        identifier(command.session_id, "session_id")


def _check_quota(command: c.ConsumeQuota | c.CheckQuota, rules: Rules) -> None:
    user(command, rules)
    word(command.resource, "resource", rules.id_bytes_max)
    check_amount(command.amount, "amount")


def _report_quota(command: c.ReportQuota, rules: Rules) -> None:
    user(command, rules)
    if command.resource is not None:
        word(command.resource, "resource", rules.id_bytes_max)


def _release_quota(command: c.ReleaseQuota, rules: Rules) -> None:
    user(command, rules)
    identifier(command.reservation_id, "reservation_id")
    if command.amount is not None:
        check_amount(command.amount, "amount")


def _user_limits(command: c.SetUserLimits, rules: Rules) -> None:
    user(command, rules)
    _limits(command, rules)


def _limits(command: c.SetUserLimits | c.SetLimits, rules: Rules) -> None:
    if command.max_sessions is not None:
        number(command.max_sessions, "max_sessions", 1, rules.sessions_max)
    if command.limit_policy is not None:
        among(command.limit_policy, "limit_policy", POLICIES)
    if command.plan is not None:
        word(command.plan, "plan", rules.id_bytes_max)


def _register_agent(command: c.RegisterAgent, rules: Rules) -> None:
    tenant(command, rules)
    word(command.agent_type, "agent_type", rules.id_bytes_max)
    words(command.capabilities, "capabilities", rules.capabilities_max, rules.id_bytes_max)
    if command.agent_id is not None:
        uuid7(command.agent_id, "agent_id")


def _acquire_agent(command: c.AcquireAgent, rules: Rules) -> None:
    session(command, rules)
    word(command.agent_type, "agent_type", rules.id_bytes_max)
    words(command.capabilities, "capabilities", rules.capabilities_max, rules.id_bytes_max)
    if command.waited_ms is not None:
        number(command.waited_ms, "waited_ms", 0, DURATION_MS_MAX)


def _release_agent(command: c.ReleaseAgent, rules: Rules) -> None:
    session(command, rules)
    identifier(command.agent_id, "agent_id")
    among(command.reset, "reset", RESETS)


def _retire_agent(command: c.RetireAgent, rules: Rules) -> None:
    tenant(command, rules)
    identifier(command.agent_id, "agent_id")
    word(command.reason, "reason", rules.id_bytes_max)
    flag(command.force, "force")


def _set_limits(command: c.SetLimits, rules: Rules) -> None:
    tenant(command, rules)
    _limits(command, rules)
    for field in ("idle_timeout_ms", "website_idle_timeout_ms", "ttl_ms"):
        if getattr(command, field) is not None:
            number(getattr(command, field), field, 1, DURATION_MS_MAX)
    if command.sensitive_ttl_ms is not None:
        number(command.sensitive_ttl_ms, "sensitive_ttl_ms", 1, SENSITIVE_TTL_MS_MAX)
    if command.alert_threshold_percent is not None:
        number(command.alert_threshold_percent, "alert_threshold_percent", 1, 100)
    quotas = command.quotas
    if not isinstance(quotas, Mapping) or len(quotas) > rules.limits_quotas_max:
        raise InvalidInput("quotas", shape(quotas), f"must map at most {rules.limits_quotas_max} resources to limits")
    for resource, value in quotas.items():
        word(resource, "quotas, a resource", rules.id_bytes_max)
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise InvalidInput("quotas, a limit", shape(value), "must be (limit, period_ms)")
        check_amount(value[0], "quotas, a limit")
        number(value[1], "quotas, a period_ms", PERIOD_MS_MIN, PERIOD_MS_MAX)


def _publish_schema(command: c.PublishSchema, rules: Rules) -> None:
    word(command.name, "name", SCHEMA_NAME_BYTES_MAX)
    text(command.schema_json, "schema_json", SCHEMA_BYTES_MAX)
    if not isinstance(command.fingerprint, bytes) or len(command.fingerprint) != 8:
        raise InvalidInput("fingerprint", shape(command.fingerprint), "must be 8 bytes")
    if command.tenant != "":
        raise InvalidInput("tenant", shape(command.tenant), 'must be "": schemas belong to no tenant')


_CHECKS: dict[type[c.Command], Callable[[Any, Rules], None]] = {
    c.AddMessage: _add_message,
    c.CreateSession: _create_session,
    c.UpdateSession: _update_session,
    c.EndSession: _end_session,
    c.ReportError: _report_error,
    c.RotateSessionKey: _rotate_session_key,
    c.ImportSession: _import_session,
    c.SetQuota: _set_quota,
    c.ConsumeQuota: _consume_quota,
    c.CheckQuota: _check_quota,
    c.ReportQuota: _report_quota,
    c.ReleaseQuota: _release_quota,
    c.SetUserLimits: _user_limits,
    c.RegisterAgent: _register_agent,
    c.AcquireAgent: _acquire_agent,
    c.ReleaseAgent: _release_agent,
    c.RetireAgent: _retire_agent,
    c.ExpireSessions: user,
    c.RecordRefusals: user,
    c.SetLimits: _set_limits,
    c.PublishSchema: _publish_schema,
    **ACCESS_CHECKS,
    **AUDIT_CHECKS,
    **ERASURE_CHECKS,
}
