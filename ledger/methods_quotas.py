"""The facade's commands about quotas, limits and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import parse_id
from session_ledger.domain.shapes import shape
from session_ledger.domain.values import amount as exact
from session_ledger.ledger.methods import (
    Amount,
    Commands,
    Id,
    optional_id,
    optional_ms,
    whole_ms,
)


class QuotaMethods(Commands):
    """Quotas of users; limits of users, plans and tenants."""

    def set_quota(
        self,
        tenant: str,
        user: str,
        resource: str,
        limit: Amount | None,
        period_s: float = 86_400,
        *,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a user's own quota; `limit` None removes it, so that the plan's or tenant's default counts again."""
        command = c.SetQuota(
            tenant=tenant,
            user=user,
            resource=resource,
            limit=None if limit is None else exact(limit, "limit"),
            period_ms=whole_ms(period_s, "period_s"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def consume_quota(
        self,
        tenant: str,
        user: str,
        resource: str,
        amount: Amount = 1,
        *,
        reserve: bool = False,
        session_id: Id | None = None,
        command_id: Id | None = None,
    ) -> r.QuotaStatus:
        """Consume an amount of the sliding window. `reserve`: it may be released later (`reservation_id`).

        Raises QuotaExceeded (`retry_after_s` says when it fits), QuotaNotSet, TooManyReservations.
        """
        command = c.ConsumeQuota(
            tenant=tenant,
            user=user,
            resource=resource,
            amount=exact(amount, "amount"),
            reserve=reserve,
            session_id=optional_id(session_id, "session_id"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.QuotaStatus)

    def check_quota(self, tenant: str, user: str, resource: str, amount: Amount = 1) -> r.QuotaStatus:
        """Say whether an amount would fit now (`allowed`); records nothing. Raises QuotaNotSet."""
        command = c.CheckQuota(tenant=tenant, user=user, resource=resource, amount=exact(amount, "amount"))
        return self._run(command, r.QuotaStatus)

    def release_quota(
        self,
        tenant: str,
        user: str,
        reservation_id: Id,
        amount: Amount | None = None,
        *,
        command_id: Id | None = None,
    ) -> r.QuotaGivenBack:
        """Settle a reservation and give its unused `amount` back (None: all). Raises ReservationNotOpen."""
        command = c.ReleaseQuota(
            tenant=tenant,
            user=user,
            reservation_id=parse_id(reservation_id, "reservation_id"),
            amount=None if amount is None else exact(amount, "amount"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.QuotaGivenBack)

    def report_quota(self, tenant: str, user: str, resource: str | None = None) -> r.QuotaReport:
        """Every quota that counts for the user, as it stands now; records nothing."""
        return self._run(c.ReportQuota(tenant=tenant, user=user, resource=resource), r.QuotaReport)

    def set_user_limits(
        self,
        tenant: str,
        user: str,
        *,
        max_sessions: int | None = None,
        limit_policy: str | None = None,
        plan: str | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a user's session limit, policy (evict or refuse) and plan, as a whole; None: the plan's or tenant's."""
        command = c.SetUserLimits(
            tenant=tenant,
            user=user,
            max_sessions=max_sessions,
            limit_policy=limit_policy,
            plan=plan,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)

    def set_limits(
        self,
        tenant: str,
        *,
        plan: str | None = None,
        max_sessions: int | None = None,
        limit_policy: str | None = None,
        idle_timeout_s: float | None = None,
        website_idle_timeout_s: float | None = None,
        ttl_s: float | None = None,
        sensitive_ttl_s: float | None = None,
        alert_threshold_percent: int | None = None,
        quotas: Mapping[str, tuple[Amount, float]] | None = None,
        command_id: Id | None = None,
    ) -> r.Recorded:
        """Set a tenant's (or one of its plans') limits and default quotas, as a whole.

        `quotas`: resource to (limit, period in seconds).
        """
        command = c.SetLimits(
            tenant=tenant,
            plan=plan,
            max_sessions=max_sessions,
            limit_policy=limit_policy,
            idle_timeout_ms=optional_ms(idle_timeout_s, "idle_timeout_s"),
            website_idle_timeout_ms=optional_ms(website_idle_timeout_s, "website_idle_timeout_s"),
            ttl_ms=optional_ms(ttl_s, "ttl_s"),
            sensitive_ttl_ms=optional_ms(sensitive_ttl_s, "sensitive_ttl_s"),
            alert_threshold_percent=alert_threshold_percent,
            quotas=_defaults(quotas),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.Recorded)


def _defaults(quotas: Mapping[str, tuple[Amount, float]] | None) -> dict[str, tuple[Decimal, int]]:
    if quotas is not None and not isinstance(quotas, Mapping):
        raise InvalidInput("quotas", shape(quotas), "must map resources to (limit, period in seconds)")
    exact_ones: dict[str, tuple[Decimal, int]] = {}
    for resource, value in (quotas or {}).items():
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise InvalidInput("quotas, a limit", shape(value), "must be (limit, period in seconds)")
        exact_ones[resource] = exact(value[0], "quotas, a limit"), whole_ms(value[1], "quotas, a period")
    return exact_ones
