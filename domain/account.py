"""What the ledger knows of one user: live sessions, quotas, limits, remembered commands; and how events change it.

`evolve_account` changes the account in place (speed: a message costs one look-up) and reads nothing but the event. A
caller whose append failed throws the account away and folds it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from session_ledger.domain.attempts import ALERT, FailedAttempts
from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AccountEvent,
    AgentRefused,
    AlertRaised,
    AuditRead,
    AuthenticationFailed,
    AuthenticationSucceeded,
    ContentErased,
    ContentRevealed,
    ErasureRefused,
    ErrorReported,
    Event,
    KeyRotated,
    LeakAcknowledged,
    LeakFound,
    LegalHoldLifted,
    LegalHoldSet,
    MessageAdded,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    QuotaSet,
    QuotaThresholdReached,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
    SessionUpdated,
    UserLimitsSet,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.remembered import Remembered, forget_bodies, remember
from session_ledger.domain.session import AccessToken, Session
from session_ledger.domain.windows import Window

REFUSED_EVERY_US = 1_000_000  # at most one fact of refusals a second, a user and resource or agent type
RESERVATIONS_MAX = 1000  # open ones, a user and resource: some 200 kB


@dataclass(slots=True)
class Reservation:
    """An amount that may be released until its period ends."""

    recorded_at: int
    open_until: int
    amount: Decimal


@dataclass(slots=True)
class Refusals:
    """Refusals that no event tells yet; the fields are those of the QuotaRefused that will."""

    count: int
    amount: Decimal
    used: Decimal
    limit: Decimal
    period_ms: int
    limit_source: str
    retry_after_ms: int | None


@dataclass(slots=True)
class AgentRefusals:
    """Refused acquisitions that no event tells yet; the fields are those of the AgentRefused that will."""

    count: int
    required: tuple[str, ...]
    session_id: bytes
    waited_ms: int | None


@dataclass(slots=True)
class RefusedAgents:
    """Refused acquisitions of one agent type."""

    last_refused_at: int
    uncounted: AgentRefusals | None = None
    """Not folded from events: `decide` counts here what it refused within a second of the last AgentRefused."""


@dataclass(slots=True)
class Quota:
    """One resource of a user: the user's own limit, if one is set, and what was consumed, whichever limit counts."""

    limit: Decimal | None = None
    period_ms: int = 0
    """Of the user's own limit."""
    window: Window = field(default_factory=Window)
    reservations: dict[bytes, Reservation] = field(default_factory=dict)
    last_refused_at: int | None = None
    uncounted: Refusals | None = None
    """Not folded from events: `decide` counts here what it refused within a second of the last QuotaRefused."""


@dataclass(slots=True)
class Account:
    """A user of a tenant; (tenant, "") is the account of the tenant's agents."""

    tenant: str
    user: str
    version: int = 0
    """Of the account's stream."""
    position: int = 0
    """Of the last event folded in."""
    sessions: dict[bytes, Session] = field(default_factory=dict)
    """Live ones, and imports that are not final."""
    quotas: dict[str, Quota] = field(default_factory=dict)
    commands: Remembered = field(default_factory=Remembered)
    max_sessions: int | None = None
    limit_policy: str | None = None
    plan: str | None = None
    refused_agents: dict[str, RefusedAgents] = field(default_factory=dict)
    """By agent type."""
    findings: dict[bytes, bool] = field(default_factory=dict)
    """Leakage findings, to whether they are acknowledged."""
    holds: dict[bytes, tuple[str, ...]] = field(default_factory=dict)
    """Legal holds: session id (b"": all of the user) to matters, sorted."""
    erased: dict[bytes, None] = field(default_factory=dict)
    """Sessions that were erased one by one."""
    erased_at: int | None = None
    """When all of the user was erased, the last time."""
    failed: FailedAttempts | None = None
    """To authenticate, in a row."""

    @property
    def due_at(self) -> int | None:
        """When the first of the sessions times out; None: none can."""
        return min((session.due_at for session in self.sessions.values()), default=None)

    @property
    def counting(self) -> dict[tuple[str, str], Quota | RefusedAgents | FailedAttempts]:
        """Whatever counts refusals that no event tells yet, by kind and name."""
        failed = {} if self.failed is None else {("authentication", ""): self.failed}
        quotas = {("quota", name): quota for name, quota in self.quotas.items()}
        return {**quotas, **{("agents", name): waits for name, waits in self.refused_agents.items()}, **failed}

    @property
    def has_uncounted_refusals(self) -> bool:
        """Whether RecordRefusals would find something, at the latest a second from the last refusal told."""
        if not self.quotas and not self.refused_agents and self.failed is None:
            return False
        return (
            any(quota.uncounted is not None for quota in self.quotas.values())
            or any(waits.uncounted is not None for waits in self.refused_agents.values())
            or (self.failed is not None and self.failed.uncounted is not None)
        )


def evolve_account(account: Account, event: Event, position: int) -> None:
    """Fold one event of the user in: of the account, of a session, or of an agent that a session holds.

    Raises LogCorrupt where the event can not follow what was folded before.
    """
    fold = _FOLDS.get(type(event))
    if fold is not None:
        fold(account, event)
    command_id = event.command_id
    if command_id is not None:
        remember(account.commands, command_id, event.command_digest or b"", event.recorded_at, position)
    account.position = position


def _session(account: Account, event: SessionEvent) -> Session:
    session = account.sessions.get(event.session_id)
    if session is None or event.version != session.version + 1:
        raise _out_of_order(event, None if session is None else session.version)
    session.version = event.version
    return session


def _out_of_order(event: Event, version: int | None) -> LogCorrupt:
    expected = "no session that lives" if version is None else f"version {version}"
    return LogCorrupt(
        f"{type(event).__name__} version {event.version} of stream {format_id(event.originator_id)} follows {expected}"
    )


def _account_event(account: Account, event: AccountEvent) -> None:
    if event.version != account.version + 1:
        raise _out_of_order(event, account.version)
    account.version = event.version


def _session_created(account: Account, event: SessionCreated) -> None:
    if event.version != 1 or event.session_id in account.sessions:
        raise _out_of_order(event, 0)
    account.sessions[event.session_id] = Session(
        event.session_id,
        1,
        event.kind,
        event.recorded_at,
        event.recorded_at,
        event.idle_timeout_ms,
        event.expires_at,
        0,
        event.key_id,
        event.imported,
        event.import_digest,
    )


def _message_added(account: Account, event: MessageAdded) -> None:
    session = account.sessions.get(event.session_id)
    if session is None or event.version != session.version + 1 or event.message_number != session.message_count + 1:
        raise _out_of_order(event, None if session is None else session.version)
    session.version = event.version
    session.message_count = event.message_number
    session.last_active_at = event.recorded_at


def _session_updated(account: Account, event: SessionUpdated) -> None:
    _session(account, event).last_active_at = event.recorded_at


def _session_over(account: Account, event: SessionEvent) -> None:
    _session(account, event)
    del account.sessions[event.session_id]


def _key_rotated(account: Account, event: KeyRotated) -> None:
    session = _session(account, event)
    if event.generation <= session.key_generation:
        raise LogCorrupt(
            f"KeyRotated to generation {event.generation} of session {format_id(event.session_id)}, "
            f"which has generation {session.key_generation}"
        )
    session.previous_key_id = session.key_id
    session.key_id, session.key_generation = event.key_id, event.generation


def _token_issued(account: Account, event: AccessTokenIssued) -> None:
    _session(account, event).access_token = AccessToken(event.token_digest, event.expires_at)


def _token_rotated(account: Account, event: AccessTokenRotated) -> None:
    replaced = (event.replaced_digest, event.replaced_until)
    _session(account, event).access_token = AccessToken(event.token_digest, event.expires_at, *replaced)


def _authentication_failed(account: Account, event: AuthenticationFailed) -> None:
    _account_event(account, event)
    if account.failed is None or account.failed.is_over(event.recorded_at):
        account.failed = FailedAttempts()
    account.failed.failed(event.recorded_at, event.attempts)


def _authentication_succeeded(account: Account, event: AuthenticationSucceeded) -> None:
    _account_event(account, event)
    account.failed = None


def _alert_raised(account: Account, event: AlertRaised) -> None:
    _account_event(account, event)
    if event.kind == ALERT and account.failed is not None:
        account.failed.alerted_at = event.recorded_at


def _error_reported(account: Account, event: ErrorReported) -> None:
    _session(account, event)


def _quota(account: Account, event: QuotaSet | QuotaConsumed | QuotaRefused | QuotaReleased) -> Quota:
    _account_event(account, event)
    quota = account.quotas.get(event.resource)
    if quota is None:
        quota = account.quotas[event.resource] = Quota()
    return quota


def _quota_set(account: Account, event: QuotaSet) -> None:
    quota = _quota(account, event)
    quota.limit, quota.period_ms = event.limit, event.period_ms


def _quota_consumed(account: Account, event: QuotaConsumed) -> None:
    quota = _quota(account, event)
    now = event.recorded_at
    period_us = event.period_ms * 1000
    quota.window.consume(now, event.amount, period_us)
    if event.reserved:
        reservations = quota.reservations
        if len(reservations) >= RESERVATIONS_MAX:
            reservations = {key: value for key, value in reservations.items() if value.open_until > now}
            quota.reservations = reservations
        reservations[event.event_id] = Reservation(now, now + period_us, event.amount)


def _quota_refused(account: Account, event: QuotaRefused) -> None:
    quota = _quota(account, event)
    quota.last_refused_at = event.recorded_at
    quota.uncounted = None


def _quota_released(account: Account, event: QuotaReleased) -> None:
    quota = _quota(account, event)
    reservation = quota.reservations.pop(event.reservation_id, None)
    if reservation is None:
        raise LogCorrupt(f"QuotaReleased of reservation {format_id(event.reservation_id)}, which is not open")
    quota.window.release(reservation.recorded_at, event.amount)


def _agent_refused(account: Account, event: AgentRefused) -> None:
    _account_event(account, event)
    account.refused_agents[event.agent_type] = RefusedAgents(event.recorded_at)


def _leak_found(account: Account, event: LeakFound) -> None:
    _account_event(account, event)
    account.findings[event.finding_id] = False


def _leak_acknowledged(account: Account, event: LeakAcknowledged) -> None:
    _account_event(account, event)
    account.findings[event.finding_id] = True


def _content_erased(account: Account, event: ContentErased) -> None:
    _account_event(account, event)
    if event.session_id is None:
        forget_bodies(account.commands)
        if account.failed is not None and account.failed.uncounted is not None:
            untold = account.failed.uncounted  # its address was sealed by the key that goes
            untold.key_id = untold.sealed_ip_address = None
        account.erased.clear()
        account.erased_at = event.recorded_at
    else:
        account.erased[event.session_id] = None


def _legal_hold_set(account: Account, event: LegalHoldSet) -> None:
    _account_event(account, event)
    held = account.holds.get(event.session_id or b"", ())
    account.holds[event.session_id or b""] = tuple(sorted({*held, event.matter}))


def _legal_hold_lifted(account: Account, event: LegalHoldLifted) -> None:
    _account_event(account, event)
    scope = event.session_id or b""
    left = tuple(matter for matter in account.holds.get(scope, ()) if matter != event.matter)
    if left:
        account.holds[scope] = left
    else:
        account.holds.pop(scope, None)


def _user_limits_set(account: Account, event: UserLimitsSet) -> None:
    _account_event(account, event)
    account.max_sessions, account.limit_policy, account.plan = event.max_sessions, event.limit_policy, event.plan


_FOLDS: dict[type[Event], Callable[[Account, Any], None]] = {
    SessionCreated: _session_created,
    SessionUpdated: _session_updated,
    MessageAdded: _message_added,
    SessionEnded: _session_over,
    SessionExpired: _session_over,
    SessionEvicted: _session_over,
    KeyRotated: _key_rotated,
    ErrorReported: _error_reported,
    QuotaSet: _quota_set,
    QuotaConsumed: _quota_consumed,
    QuotaRefused: _quota_refused,
    QuotaReleased: _quota_released,
    QuotaThresholdReached: _account_event,
    UserLimitsSet: _user_limits_set,
    AccessTokenIssued: _token_issued,
    AccessTokenRotated: _token_rotated,
    AuthenticationFailed: _authentication_failed,
    AuthenticationSucceeded: _authentication_succeeded,
    AgentRefused: _agent_refused,
    ContentRevealed: _account_event,
    AuditRead: _account_event,
    LeakFound: _leak_found,
    LeakAcknowledged: _leak_acknowledged,
    AlertRaised: _alert_raised,
    ContentErased: _content_erased,
    ErasureRefused: _account_event,
    LegalHoldSet: _legal_hold_set,
    LegalHoldLifted: _legal_hold_lifted,
}
"""Agent events change no account (see `agents`), but their commands are remembered in one."""
