"""Quota reports from the views: the rows give the domain its account and settings, the domain gives the answer."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from session_ledger.consumers.paging import write_cursor
from session_ledger.consumers.records import Page, TenantQuota, UserQuotas
from session_ledger.domain.agents import AgentPool
from session_ledger.domain.commands import Prepared, ReportQuota
from session_ledger.domain.control import TenantSettings
from session_ledger.domain.decide_quotas import report_quota
from session_ledger.domain.decision import Context
from session_ledger.domain.results import QuotaReport, QuotaStatus
from session_ledger.projections import quota_reading as rows


def report(db: sqlite3.Connection, tenant: str, user: str, now: int) -> QuotaReport:
    """What ReportQuota answers at `now`, microseconds since the epoch."""
    return QuotaReport(quotas=_quotas(db, rows.settings_of(db, tenant), tenant, user, now))


def _quotas(
    db: sqlite3.Connection, settings: TenantSettings, tenant: str, user: str, now: int
) -> tuple[QuotaStatus, ...]:
    context = Context(rows.account_of(db, tenant, user), AgentPool(), settings, partition=-1)
    command = ReportQuota(tenant=tenant, user=user)
    answer = report_quota(context, command, Prepared(command, bytes(16), b""), now, _no_id).result
    assert isinstance(answer, QuotaReport)
    return tuple(replace(status, partition=-1, position=0, command_id="") for status in answer.quotas)


def _no_id() -> bytes:
    raise AssertionError("a report records nothing")


def user_quotas(
    db: sqlite3.Connection, tenant: str, after: str, limit: int, now: int, user_of: Callable[[str, str], str]
) -> Page[UserQuotas]:
    """A page of users, by the name in the rows, after that one; `user_of`: tenant and that name, to the user's id."""
    settings = rows.settings_of(db, tenant)
    users = rows.users_with_quotas(db, tenant, after, limit + 1)
    items = tuple(
        UserQuotas(
            user=user_of(tenant, user),
            quotas=_quotas(db, settings, tenant, user, now),
            refusals={name: count for name, (count, _) in rows.refusals(db, tenant, user).items() if count},
        )
        for user in users[:limit]
    )
    return Page(items, write_cursor(users[limit - 1]) if len(users) > limit else None)


def tenant_quotas(db: sqlite3.Connection, tenant: str, now: int) -> list[TenantQuota]:
    """Sums over every user of the tenant, by resource and period."""
    settings = rows.settings_of(db, tenant)
    sums: dict[tuple[str, int], tuple[int, Decimal, Decimal, int]] = {}
    for user in rows.all_users_with_quotas(db, tenant):
        refused = rows.refusals(db, tenant, user)
        for status in _quotas(db, settings, tenant, user, now):
            key = (status.resource, status.period_ms)
            users, used, limit, refusals = sums.get(key, (0, Decimal(0), Decimal(0), 0))
            count = refused.get(status.resource, (0, None))[0]
            sums[key] = (users + 1, used + status.used, limit + status.limit, refusals + count)
    return [
        TenantQuota(resource=key[0], period_ms=key[1], users=value[0], used=value[1], limit=value[2], refusals=value[3])
        for key, value in sorted(sums.items())
    ]
