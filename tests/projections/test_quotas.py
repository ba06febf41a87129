"""Quota rows give the ledger's own answer to ReportQuota, at the same position and time."""

from __future__ import annotations

import random
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from session_ledger.consumers import quota_views
from session_ledger.domain import commands as c
from session_ledger.domain.results import QuotaStatus
from tests.projections.rows import empty_views, fold
from tests.projections.world import SECOND_US, TENANTS, USERS, World


def told(quotas: Iterable[QuotaStatus]) -> list[tuple[object, ...]]:
    """What a report says, without where it was answered."""
    return [(q.resource, q.used, q.limit, q.period_ms, q.source, q.resets_at, q.percentage) for q in quotas]


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_report_from_rows_is_the_ledgers_own(seed: int) -> None:
    """After every few commands, for every user: used, limit, period, source and reset are those of ReportQuota."""
    world, db, chance, folded = World(seed), empty_views(), random.Random(seed), 0
    for _ in range(20):
        world.play(chance.randrange(1, 20))
        by_partition: dict[int, list[tuple[int, object]]] = {}
        for partition, position, event in world.events[folded:]:
            by_partition.setdefault(partition, []).append((position, event))
        for partition, events in by_partition.items():
            fold(db, partition, events)  # type: ignore[arg-type]
        folded = len(world.events)
        for tenant in TENANTS:
            for user in USERS:
                expected = told(world.report(tenant, user).quotas)
                assert expected == told(quota_views.report(db, tenant, user, world.now).quotas)


def test_amounts_leave_the_report_as_time_goes_by() -> None:
    """The same rows, read later, count what is still within the period and say when the next amount leaves."""
    world, db = World(partitions=1), empty_views()
    start = world.now
    world.run(c.SetQuota(tenant="acme", user="ada", resource="tokens", limit=Decimal(10), period_ms=60_000))
    for _ in range(3):
        world.now += 20 * SECOND_US
        world.run(c.ConsumeQuota(tenant="acme", user="ada", resource="tokens", amount=Decimal(2)))
    fold(db, 0, [(position, event) for _, position, event in world.events])
    (now,) = quota_views.report(db, "acme", "ada", world.now).quotas
    assert (Decimal(6), start + 80 * SECOND_US) == (now.used, now.resets_at)
    (later,) = quota_views.report(db, "acme", "ada", start + 80 * SECOND_US).quotas
    assert (Decimal(4), start + 100 * SECOND_US) == (later.used, later.resets_at)
    (over,) = quota_views.report(db, "acme", "ada", start + 200 * SECOND_US).quotas
    assert (Decimal(0), None) == (over.used, over.resets_at)


def test_the_sums_of_a_tenant_are_those_of_its_users() -> None:
    """Used, limits and refusals of a resource add up over the tenant's users, and no other tenant's count."""
    world, db = World(partitions=1), empty_views()
    for tenant, user, amount in (("acme", "ada", 3), ("acme", "bob", 4), ("globex", "ada", 5)):
        world.run(c.SetQuota(tenant=tenant, user=user, resource="tokens", limit=Decimal(6), period_ms=60_000))
        world.run(c.ConsumeQuota(tenant=tenant, user=user, resource="tokens", amount=Decimal(amount)))
    world.run(c.ConsumeQuota(tenant="acme", user="bob", resource="tokens", amount=Decimal(4)))
    fold(db, 0, [(position, event) for _, position, event in world.events])
    (total,) = quota_views.tenant_quotas(db, "acme", world.now)
    assert ("tokens", 2, Decimal(7), Decimal(12), 1) == (
        total.resource, total.users, total.used, total.limit, total.refusals,
    )  # fmt: skip
    world.run(c.SetLimits(tenant="acme", quotas={"api_calls": (Decimal(50), 60_000)}))
    fold(db, -1, [(position, event) for partition, position, event in world.events if partition == -1])
    default, _ = quota_views.tenant_quotas(db, "acme", world.now)
    assert ("api_calls", 2, Decimal(0), Decimal(100)) == (default.resource, default.users, default.used, default.limit)
    page = quota_views.user_quotas(db, "acme", "", 1, world.now, lambda _, user: user)
    assert ["ada"] == [item.user for item in page]
    assert page.next is not None


def test_amounts_that_left_a_shorter_period_do_not_come_back_with_a_longer_one() -> None:
    """What left the window left it, in one batch and in many: to the microsecond, and whatever period comes next."""
    world = World(partitions=1)
    ada: dict[str, Any] = {"tenant": "acme", "user": "ada", "resource": "tokens"}
    for period_ms in (60_000, 60_000, 1_000, 600_000):
        world.run(c.SetQuota(**ada, limit=Decimal(100), period_ms=period_ms))
        assert world.run(c.ConsumeQuota(**ada, amount=Decimal(7))) is None
        world.now += SECOND_US
    events = [(position, event) for _, position, event in world.events]
    for size in (1, 4, len(events)):
        db = empty_views()
        for start in range(0, len(events), size):
            fold(db, 0, events[start : start + size])
        (status,) = quota_views.report(db, "acme", "ada", world.now).quotas
        assert (Decimal(14), told(world.report("acme", "ada").quotas)) == (status.used, told([status]))
        assert [(2,)] == db.execute("SELECT count(*) FROM quota_buckets").fetchall()
