"""Decisions about quotas and the account: set, consume, check, report, release, limits, and what was refused."""

from __future__ import annotations

from decimal import Decimal

from session_ledger.domain.account import REFUSED_EVERY_US, RESERVATIONS_MAX, Quota, Refusals
from session_ledger.domain.commands import (
    CheckQuota,
    ConsumeQuota,
    Prepared,
    RecordRefusals,
    ReleaseQuota,
    ReportQuota,
    SetQuota,
    SetUserLimits,
)
from session_ledger.domain.decide_access import told_later
from session_ledger.domain.decide_agents import agent_refused
from session_ledger.domain.decision import Context, Decision, NewId, own_event_id
from session_ledger.domain.errors import (
    InvalidInput,
    QuotaExceeded,
    QuotaNotSet,
    ReservationNotOpen,
    TooManyReservations,
)
from session_ledger.domain.events import (
    Event,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    QuotaSet,
    QuotaThresholdReached,
    UserLimitsSet,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import QuotaReport, QuotaStatus, Recorded


def consume_quota(context: Context, command: ConsumeQuota, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """QuotaConsumed, and QuotaThresholdReached where usage goes over the threshold; or QuotaExceeded."""
    account, resource, amount = context.account, command.resource, command.amount
    counting = context.settings.quota(account, resource)
    if counting is None:
        return Decision([], _not_set(resource))
    limit, period_ms, source = counting
    quota = account.quotas.get(resource) or Quota()
    used = quota.window.used(now, period_ms * 1000)
    after = used + amount
    if after > limit:
        return _refuse(context, command, quota, used, limit, period_ms, source, now, new_id)
    if command.reserve and len(quota.reservations) >= RESERVATIONS_MAX:
        open_until = [held.open_until for held in quota.reservations.values() if held.open_until > now]
        if len(open_until) >= RESERVATIONS_MAX:
            error = TooManyReservations(f"{resource}: {len(open_until)} reservations are open; settle some")
            error.retry_after_s = (min(open_until) - now) / 1_000_000
            return Decision([], error)
    version = account.version + 1
    events: list[Event] = [
        QuotaConsumed(
            own_event_id(prepared, new_id),
            command.tenant,
            command.user,
            version,
            now,
            prepared.command_id,
            prepared.digest,
            resource,
            amount,
            after,
            limit,
            period_ms,
            source,
            command.reserve,
            command.session_id,
        )
    ]
    percent = context.settings.alert_threshold_percent(account)
    if used * 100 < limit * percent <= after * 100:
        head = (command.tenant, command.user, version + 1, now, prepared.command_id, prepared.digest)
        events.append(QuotaThresholdReached(new_id(), *head, resource, after, limit, period_ms, percent))
    return Decision(events)


def _refuse(
    context: Context,
    command: ConsumeQuota,
    quota: Quota,
    used: Decimal,
    limit: Decimal,
    period_ms: int,
    source: str,
    now: int,
    new_id: NewId,
) -> Decision:
    """The refusal, told by an event unless one told of another within the last second: then it is counted."""
    resource, amount = command.resource, command.amount
    fits_at = quota.window.when_fits(now, amount, limit, period_ms * 1000)
    retry_after_ms = None if fits_at is None else -((now - fits_at) // 1000)  # rounded up
    if retry_after_ms is None:
        error = QuotaExceeded(f"{resource}: {amount} is over the limit of {limit} itself; ask for less")
        error.retriable = False
    else:
        error = QuotaExceeded(
            f"{resource}: {amount} does not fit, {used} of {limit} are used; try again in {retry_after_ms / 1000} s"
        )
        error.retry_after_s = retry_after_ms / 1000
    counted = 0 if quota.uncounted is None else quota.uncounted.count
    refusals = Refusals(counted + 1, amount, used, limit, period_ms, source, retry_after_ms)
    if quota.last_refused_at is not None and now - quota.last_refused_at < REFUSED_EVERY_US:
        quota.uncounted = refusals
        return Decision([], error)
    return Decision([_refused(context, resource, refusals, context.account.version + 1, now, new_id)], error)


def _refused(context: Context, resource: str, told: Refusals, version: int, now: int, new_id: NewId) -> QuotaRefused:
    return QuotaRefused(
        new_id(),
        context.account.tenant,
        context.account.user,
        version,
        now,
        None,
        None,
        resource,
        told.amount,
        told.used,
        told.limit,
        told.period_ms,
        told.limit_source,
        told.count,
        told.retry_after_ms,
    )


def record_refusals(context: Context, command: RecordRefusals, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """QuotaRefused, AgentRefused, AuthenticationFailed for what was counted and not told, a second after the last."""
    account, events = context.account, list[Event]()
    for resource, quota in sorted(account.quotas.items()):
        if quota.uncounted is None or now - (quota.last_refused_at or 0) < REFUSED_EVERY_US:
            continue
        version = account.version + 1 + len(events)
        events.append(_refused(context, resource, quota.uncounted, version, now, new_id))
    for agent_type, waits in sorted(account.refused_agents.items()):
        if waits.uncounted is None or now - waits.last_refused_at < REFUSED_EVERY_US:
            continue
        version = account.version + 1 + len(events)
        events.append(agent_refused(account, agent_type, waits.uncounted, version, now, new_id))
    events += told_later(account, account.version + 1 + len(events), now, new_id)
    return Decision(events, result=None if events else Recorded(command_id=format_id(prepared.command_id)))


def check_quota(context: Context, command: CheckQuota, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """Whether the amount would fit now."""
    status = _status(context, command.resource, prepared, now, command.amount)
    return Decision([], _not_set(command.resource)) if status is None else Decision([], result=status)


def report_quota(context: Context, command: ReportQuota, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """Every quota that counts for the user, by resource: the user's own, the plan's, the tenant's."""
    resources = [command.resource] if command.resource is not None else context.settings.resources(context.account)
    found = [_status(context, resource, prepared, now, None) for resource in resources]
    quotas = tuple(status for status in found if status is not None)
    if command.resource is not None and not quotas:
        return Decision([], _not_set(command.resource))
    return Decision([], result=QuotaReport(command_id=format_id(prepared.command_id), quotas=quotas))


def _status(
    context: Context, resource: str, prepared: Prepared, now: int, amount: Decimal | None
) -> QuotaStatus | None:
    counting = context.settings.quota(context.account, resource)
    if counting is None:
        return None
    limit, period_ms, source = counting
    window = (context.account.quotas.get(resource) or Quota()).window
    used = window.used(now, period_ms * 1000)
    allowed = amount is None or used + amount <= limit
    fits_at = None if allowed or amount is None else window.when_fits(now, amount, limit, period_ms * 1000)
    return QuotaStatus(
        partition=context.partition,
        position=context.account.position,
        command_id=format_id(prepared.command_id),
        resource=resource,
        used=used,
        limit=limit,
        period_ms=period_ms,
        source=source,
        allowed=allowed,
        resets_at=window.oldest_expiry(now, period_ms * 1000),
        retry_after_ms=None if fits_at is None else -((now - fits_at) // 1000),
    )


def _not_set(resource: str) -> QuotaNotSet:
    return QuotaNotSet(f"{resource}: no quota is set for the user, the user's plan or the tenant; set one")


def release_quota(context: Context, command: ReleaseQuota, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """QuotaReleased: the reservation is settled, its unused part counts no more."""
    account, reservation_id = context.account, command.reservation_id
    for resource, quota in account.quotas.items():
        held = quota.reservations.get(reservation_id)
        if held is None:
            continue
        if now >= held.open_until:
            break
        amount = held.amount if command.amount is None else command.amount
        if amount > held.amount:
            return Decision([], InvalidInput("amount", f"{amount}", f"at most the {held.amount} that were reserved"))
        head = (command.tenant, command.user, account.version + 1, now, prepared.command_id, prepared.digest)
        event_id = own_event_id(prepared, new_id)
        return Decision([QuotaReleased(event_id, *head, resource, amount, reservation_id)])
    error = f"reservation {format_id(reservation_id)} is not open: unknown, settled before, or its period is over"
    return Decision([], ReservationNotOpen(error))


def set_quota(context: Context, command: SetQuota, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """QuotaSet: the user's own quota of a resource."""
    head = (command.tenant, command.user, context.account.version + 1, now, prepared.command_id, prepared.digest)
    event_id = own_event_id(prepared, new_id)
    return Decision([QuotaSet(event_id, *head, command.resource, command.limit, command.period_ms)])


def set_user_limits(context: Context, command: SetUserLimits, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """UserLimitsSet: the user's session limit, policy and plan, as a whole."""
    head = (command.tenant, command.user, context.account.version + 1, now, prepared.command_id, prepared.digest)
    event_id = own_event_id(prepared, new_id)
    return Decision([UserLimitsSet(event_id, *head, command.max_sessions, command.limit_policy, command.plan)])
