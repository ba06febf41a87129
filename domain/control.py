"""The control log's state: each tenant's limits, plans and default quotas, and which schemas are published.

What counts for a user is resolved piece by piece: the user's own setting, the plan's, the tenant's, the built-in one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from session_ledger.domain.account import Account
from session_ledger.domain.commands import (
    EraseTenant,
    LiftTenantHold,
    Prepared,
    PublishSchema,
    SetLimits,
    SetRetention,
    SetTenantHold,
)
from session_ledger.domain.decision import Decision, nothing_new
from session_ledger.domain.errors import (
    ContentGone,
    HoldNotFound,
    InvalidInput,
    LogCorrupt,
    SessionLedgerError,
    UnderLegalHold,
)
from session_ledger.domain.events import (
    Event,
    LimitsSet,
    QuotaDefault,
    RetentionSet,
    SchemaPublished,
    TenantErased,
    TenantEvent,
    TenantHoldLifted,
    TenantHoldSet,
)
from session_ledger.domain.remembered import Remembered, recall, remember
from session_ledger.domain.results import Recorded
from session_ledger.domain.session import EVICT, SENSITIVE, SENSITIVE_TTL_MS_MAX, WEBSITE

MAX_SESSIONS = 5
IDLE_TIMEOUT_MS = 30 * 60_000
WEBSITE_IDLE_TIMEOUT_MS = 24 * 3_600_000
TTL_MS = 30 * 86_400_000
ALERT_THRESHOLD_PERCENT = 80
RETENTION_MS = 30 * 86_400_000
SENSITIVE_RETENTION_MS = 7 * 86_400_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant or a plan sets; None: not set here."""

    max_sessions: int | None = None
    limit_policy: str | None = None
    idle_timeout_ms: int | None = None
    website_idle_timeout_ms: int | None = None
    ttl_ms: int | None = None
    sensitive_ttl_ms: int | None = None
    alert_threshold_percent: int | None = None
    quotas: dict[str, tuple[Decimal, int]] = field(default_factory=dict)
    """Resource to (limit, period_ms)."""


NOTHING = Limits()


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """One tenant's settings; a change makes a new one, so other threads may read it. Accounts bring the user's part."""

    own: Limits = NOTHING
    plans: dict[str, Limits] = field(default_factory=dict)
    holds: frozenset[str] = frozenset()
    """Matters of the legal holds on all of the tenant's content."""
    erased: bool = False
    retention: tuple[int | None, int | None] = (None, None)
    """Milliseconds, of sessions and of sensitive ones; None: not set."""

    def _plan(self, account: Account) -> Limits:
        return NOTHING if account.plan is None else self.plans.get(account.plan, NOTHING)

    def max_sessions(self, account: Account) -> int:
        """How many live sessions the user may have."""
        return _first(account.max_sessions, self._plan(account).max_sessions, self.own.max_sessions, MAX_SESSIONS)

    def limit_policy(self, account: Account) -> str:
        """evict or refuse, when the user has as many."""
        return account.limit_policy or self._plan(account).limit_policy or self.own.limit_policy or EVICT

    def idle_timeout_ms(self, account: Account, kind: str) -> int:
        """After how long without activity a session of that kind expires."""
        plan, own = self._plan(account), self.own
        if kind == WEBSITE:
            return _first(plan.website_idle_timeout_ms, own.website_idle_timeout_ms, None, WEBSITE_IDLE_TIMEOUT_MS)
        return _first(plan.idle_timeout_ms, own.idle_timeout_ms, None, IDLE_TIMEOUT_MS)

    def ttl_ms(self, account: Account, kind: str) -> int:
        """How long a session of that kind lives at most; for sensitive ones a caller can not ask for more."""
        plan, own = self._plan(account), self.own
        if kind == SENSITIVE:
            return min(
                _first(plan.sensitive_ttl_ms, own.sensitive_ttl_ms, None, SENSITIVE_TTL_MS_MAX), SENSITIVE_TTL_MS_MAX
            )
        return _first(plan.ttl_ms, own.ttl_ms, None, TTL_MS)

    def retention_ms(self, kind: str) -> int:
        """How long the content of a session of that kind is kept after its end."""
        own, sensitive = self.retention
        if kind == SENSITIVE:
            return SENSITIVE_RETENTION_MS if sensitive is None else sensitive
        return RETENTION_MS if own is None else own

    def alert_threshold_percent(self, account: Account) -> int:
        """Usage from which QuotaThresholdReached is recorded."""
        return _first(
            self._plan(account).alert_threshold_percent, self.own.alert_threshold_percent, None, ALERT_THRESHOLD_PERCENT
        )

    def quota(self, account: Account, resource: str) -> tuple[Decimal, int, str] | None:
        """(limit, period_ms, source: user, plan or tenant); None: no quota of that resource is set."""
        own = account.quotas.get(resource)
        if own is not None and own.limit is not None:
            return own.limit, own.period_ms, "user"
        found = self._plan(account).quotas.get(resource)
        if found is not None:
            return found[0], found[1], "plan"
        found = self.own.quotas.get(resource)
        return None if found is None else (found[0], found[1], "tenant")

    def resources(self, account: Account) -> list[str]:
        """Every resource with a quota that counts for the user, sorted."""
        names = {name for name, quota in account.quotas.items() if quota.limit is not None}
        return sorted(names.union(self._plan(account).quotas, self.own.quotas))


DEFAULTS = TenantSettings()


@dataclass(slots=True)
class TenantState:
    """One tenant's stream in the control log."""

    version: int = 0
    settings: TenantSettings = DEFAULTS
    commands: Remembered = field(default_factory=Remembered)


@dataclass(slots=True)
class ControlState:
    """Folded in place from the control log."""

    tenants: dict[str, TenantState] = field(default_factory=dict)
    schemas: dict[bytes, str] = field(default_factory=dict)
    """Fingerprint to name."""
    schema_digests: dict[bytes, bytes] = field(default_factory=dict)
    """Fingerprint to BLAKE2b of the text, 16 bytes."""
    position: int = 0

    def settings_of(self, tenant: str) -> TenantSettings:
        """The tenant's settings as they stand; the built-in defaults where nothing was set."""
        state = self.tenants.get(tenant)
        return DEFAULTS if state is None else state.settings

    def knows_schema(self, fingerprint: bytes) -> bool:
        """Whether that schema has been published."""
        return fingerprint in self.schemas


def decide_control(state: ControlState, prepared: Prepared, now: int, new_id: Callable[[], bytes]) -> Decision:
    """Decide a command of a tenant. Errors are in the decision."""
    command = prepared.command
    tenant = state.tenants.get(command.tenant) or TenantState()
    try:
        repeat = recall(tenant.commands, prepared.command_id, prepared.digest, now)
    except SessionLedgerError as error:
        return Decision([], error)
    if repeat is not None:
        return Decision([], repeat=repeat)
    head = (new_id(), command.tenant, "", tenant.version + 1, now, prepared.command_id, prepared.digest)
    if isinstance(command, PublishSchema):
        known = state.schemas.get(command.fingerprint)
        if known is not None:
            if (known, state.schema_digests[command.fingerprint]) != (command.name, _digest(command.schema_json)):
                seen = f"{command.fingerprint.hex()}, which is published with another name or text"
                return Decision([], InvalidInput("fingerprint", seen, "must be the text's own"))
            return Decision([], result=Recorded())
        return Decision([SchemaPublished(*head, command.name, command.fingerprint, command.schema_json)])
    if isinstance(command, EraseTenant | SetTenantHold | LiftTenantHold):
        return _decide_erasure(tenant.settings, command, prepared, head)
    if tenant.settings.erased:
        return Decision([], ContentGone(f"tenant {command.tenant!r} was erased: it takes no command"))
    if isinstance(command, SetRetention):
        told = (command.retention_ms, command.sensitive_retention_ms, command.requested_by, command.reason)
        return Decision([RetentionSet(*head, *told)])
    if isinstance(command, SetLimits):
        quotas = tuple(QuotaDefault(name, limit, ms) for name, (limit, ms) in sorted(command.quotas.items()))
        return Decision(
            [
                LimitsSet(
                    *head,
                    command.plan,
                    command.max_sessions,
                    command.limit_policy,
                    command.idle_timeout_ms,
                    command.website_idle_timeout_ms,
                    command.ttl_ms,
                    command.sensitive_ttl_ms,
                    command.alert_threshold_percent,
                    quotas,
                )
            ]
        )
    raise TypeError(f"{type(command).__name__} is no command of the control log")


def _decide_erasure(
    settings: TenantSettings,
    command: EraseTenant | SetTenantHold | LiftTenantHold,
    prepared: Prepared,
    head: tuple[bytes, str, str, int, int, bytes | None, bytes | None],
) -> Decision:
    if isinstance(command, EraseTenant):
        if settings.holds:
            held = f"tenant {command.tenant!r} is under a legal hold ({', '.join(sorted(settings.holds))})"
            return Decision([], UnderLegalHold(f"{held}: nothing was erased; lift the hold first, if you may"))
        if settings.erased:
            return nothing_new(prepared)
        return Decision([TenantErased(*head, command.requested_by, command.reason)])
    told = (command.matter, command.requested_by, command.reason)
    if isinstance(command, SetTenantHold):
        return nothing_new(prepared) if command.matter in settings.holds else Decision([TenantHoldSet(*head, *told)])
    if command.matter not in settings.holds:
        return Decision([], HoldNotFound(f"matter {command.matter!r}: it holds nothing of tenant {command.tenant!r}"))
    return Decision([TenantHoldLifted(*head, *told)])


def evolve_control(state: ControlState, event: Event, position: int) -> None:
    """Fold one event of the control log in. Raises LogCorrupt where it can not follow or does not belong there."""
    if not isinstance(event, TenantEvent):
        raise LogCorrupt(f"{type(event).__name__} does not belong into the control log (position {position})")
    tenant = state.tenants.setdefault(event.tenant, TenantState())
    if event.version != tenant.version + 1:
        seen = f"{type(event).__name__} version {event.version} of tenant {event.tenant!r}"
        raise LogCorrupt(f"{seen} follows version {tenant.version}")
    tenant.version = event.version
    if isinstance(event, LimitsSet):
        tenant.settings = _with(tenant.settings, event)
    elif isinstance(event, SchemaPublished):
        state.schemas[event.fingerprint] = event.name
        state.schema_digests[event.fingerprint] = _digest(event.schema_json)
    elif isinstance(event, RetentionSet):
        kept = (event.retention_ms, event.sensitive_retention_ms)
        tenant.settings = replace(tenant.settings, retention=kept)
    elif isinstance(event, TenantErased):
        tenant.settings = replace(tenant.settings, erased=True)
    elif isinstance(event, TenantHoldSet):
        tenant.settings = replace(tenant.settings, holds=tenant.settings.holds | {event.matter})
    elif isinstance(event, TenantHoldLifted):
        tenant.settings = replace(tenant.settings, holds=tenant.settings.holds - {event.matter})
    if event.command_id is not None:
        remember(tenant.commands, event.command_id, event.command_digest or b"", event.recorded_at, position)
    state.position = position


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _with(settings: TenantSettings, event: LimitsSet) -> TenantSettings:
    limits = Limits(
        event.max_sessions,
        event.limit_policy,
        event.idle_timeout_ms,
        event.website_idle_timeout_ms,
        event.ttl_ms,
        event.sensitive_ttl_ms,
        event.alert_threshold_percent,
        {quota.resource: (quota.limit, quota.period_ms) for quota in event.quotas},
    )
    if event.plan is None:
        return replace(settings, own=limits)
    return replace(settings, plans={**settings.plans, event.plan: limits})


def _first(user: int | None, plan: int | None, tenant: int | None, default: int) -> int:
    for value in (user, plan, tenant):
        if value is not None:
            return value
    return default
