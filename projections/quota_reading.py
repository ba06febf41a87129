"""The domain's own account and settings, made again from rows, so that a report is computed by the domain's code."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from decimal import Decimal

from session_ledger.domain.account import Account, Quota
from session_ledger.domain.control import NOTHING, Limits, TenantSettings
from session_ledger.domain.windows import Bucket, Window


def settings_of(db: sqlite3.Connection, tenant: str) -> TenantSettings:
    """The tenant's limits, plans and default quotas."""
    own, plans = NOTHING, dict[str, Limits]()
    rows = db.execute(
        "SELECT plan, max_sessions, limit_policy, idle_timeout_ms, website_idle_timeout_ms, ttl_ms, sensitive_ttl_ms,"
        " alert_threshold_percent, quotas FROM tenant_limits WHERE tenant = ? ORDER BY plan",
        (tenant,),
    )
    for row in rows:
        plan: str = row[0]
        defaults = {resource: (Decimal(limit), period_ms) for resource, limit, period_ms in json.loads(row[8])}
        limits = Limits(row[1], row[2], row[3], row[4], row[5], row[6], row[7], defaults)
        if plan == "":
            own = limits
        else:
            plans[plan] = limits
    return TenantSettings(own, plans)


def account_of(db: sqlite3.Connection, tenant: str, user: str) -> Account:
    """The user's account as far as quotas go: limits, plan, and every window as it stands."""
    account = Account(tenant, user)
    row = db.execute(
        "SELECT max_sessions, limit_policy, plan FROM user_limits WHERE tenant = ? AND user = ?", (tenant, user)
    ).fetchone()
    if row is not None:
        account.max_sessions, account.limit_policy, account.plan = row
    for resource, limit, period_ms, refused_at in db.execute(
        "SELECT resource, own_limit, own_period_ms, last_refused_at FROM quotas WHERE tenant = ? AND user = ?",
        (tenant, user),
    ):
        own = None if limit is None else Decimal(limit)
        account.quotas[resource] = Quota(own, period_ms, last_refused_at=refused_at)
    for resource, first_us, last_us, amount in db.execute(
        "SELECT resource, first_us, last_us, amount FROM quota_buckets WHERE tenant = ? AND user = ?"
        " ORDER BY resource, first_us",
        (tenant, user),
    ):
        window: Window = account.quotas[resource].window
        window.buckets.append(Bucket(first_us, last_us, Decimal(amount)))
        window.total += Decimal(amount)
    return account


def users_with_quotas(db: sqlite3.Connection, tenant: str, after: str, limit: int) -> list[str]:
    """Up to `limit` users of the tenant, after that one, who consumed, were refused or have a quota of their own."""
    rows = db.execute(
        "SELECT DISTINCT user FROM quotas WHERE tenant = ? AND user > ? ORDER BY user LIMIT ?", (tenant, after, limit)
    )
    return [user for (user,) in rows]


def all_users_with_quotas(db: sqlite3.Connection, tenant: str, page: int = 1000) -> Iterator[str]:
    """Every such user, in order, a page in memory at a time."""
    after = ""
    while users := users_with_quotas(db, tenant, after, page):
        yield from users
        after = users[-1]


def refusals(db: sqlite3.Connection, tenant: str, user: str) -> dict[str, tuple[int, int | None]]:
    """Resource to (refusals recorded, when the last one was)."""
    rows = db.execute(
        "SELECT resource, refusals, last_refused_at FROM quotas WHERE tenant = ? AND user = ?", (tenant, user)
    )
    return {resource: (count, last) for resource, count, last in rows}
