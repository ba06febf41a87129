"""Decisions about quotas: consume, refuse, coalesce, check, report, reserve, release; limits of users and plans."""

from __future__ import annotations

from decimal import Decimal

import pytest

from session_ledger.domain import account
from session_ledger.domain import commands as c
from session_ledger.domain.control import Limits, TenantSettings
from session_ledger.domain.errors import (
    InvalidInput,
    KeyUnavailable,
    QuotaExceeded,
    QuotaNotSet,
    ReservationNotOpen,
    TooManyReservations,
)
from session_ledger.domain.events import (
    AuthenticationFailed,
    QuotaConsumed,
    QuotaRefused,
    QuotaReleased,
    QuotaThresholdReached,
)
from session_ledger.domain.ids import parse_id
from session_ledger.domain.results import QuotaGivenBack, QuotaReport, QuotaStatus, Recorded
from tests.domain.world import DAY, HOUR, SECOND, START, TENANT, USER, Outcome, World

SETTINGS = TenantSettings(
    Limits(quotas={"tokens": (Decimal(100), 3_600_000), "calls": (Decimal(10), 60_000)}),
    {"pro": Limits(max_sessions=50, quotas={"tokens": (Decimal(1000), 86_400_000)})},
)


def consume(world: World, amount: object, resource: str = "tokens", reserve: bool = False) -> Outcome:
    """ConsumeQuota of an amount."""
    number = Decimal(str(amount))
    return world.run(c.ConsumeQuota(tenant=TENANT, user=USER, resource=resource, amount=number, reserve=reserve))


def status(world: World, amount: object, resource: str = "tokens") -> QuotaStatus:
    """What CheckQuota answers."""
    result = world.run(c.CheckQuota(tenant=TENANT, user=USER, resource=resource, amount=Decimal(str(amount)))).ok()
    assert isinstance(result, QuotaStatus)
    return result


def test_without_a_quota_nothing_can_be_consumed() -> None:
    """QuotaNotSet, for consuming, checking and reporting by name."""
    world = World()
    for command in (
        c.ConsumeQuota(tenant=TENANT, user=USER, resource="tokens", amount=Decimal(1)),
        c.CheckQuota(tenant=TENANT, user=USER, resource="tokens", amount=Decimal(1)),
        c.ReportQuota(tenant=TENANT, user=USER, resource="tokens"),
    ):
        assert isinstance(world.run(command).error, QuotaNotSet)
    report = world.run(c.ReportQuota(tenant=TENANT, user=USER)).ok()
    assert isinstance(report, QuotaReport)
    assert () == report.quotas


def test_consuming_says_what_is_used_and_by_which_limit() -> None:
    """The event and the result carry the limit, its period and its source."""
    world = World(SETTINGS)
    consume(world, 30).ok()
    outcome = consume(world, "0.5")
    (event,) = outcome.events
    assert isinstance(event, QuotaConsumed)
    assert (Decimal("30.5"), Decimal(100), 3_600_000, "tenant", False, 2) == (
        event.used,
        event.limit,
        event.period_ms,
        event.limit_source,
        event.reserved,
        event.version,
    )
    result = outcome.ok()
    assert isinstance(result, QuotaStatus)
    assert (Decimal("69.5"), 30.5, None) == (result.remaining, result.percentage, result.reservation_id)


def test_what_exceeds_the_limit_is_refused_with_the_time_when_it_fits() -> None:
    """QuotaExceeded with retry_after_s; at that time the same command succeeds, just before it does not."""
    world = World(SETTINGS)
    consume(world, 60).ok()
    world.now += 10 * SECOND
    consume(world, 40).ok()
    world.now += 10 * SECOND
    prepared = world.prepare(c.ConsumeQuota(tenant=TENANT, user=USER, resource="tokens", amount=Decimal(50)))
    outcome = world.run_prepared(prepared)
    assert isinstance(outcome.error, QuotaExceeded)
    assert 3580.0 == outcome.error.retry_after_s
    (event,) = outcome.events
    assert isinstance(event, QuotaRefused)
    assert (Decimal(50), Decimal(100), 1, 3_580_000, None) == (
        event.amount,
        event.used,
        event.count,
        event.retry_after_ms,
        event.command_id,
    )
    world.now = START + HOUR - 1
    assert not status(world, 50).allowed
    world.now += 1
    assert status(world, 50).allowed
    consume(world, 50).ok()


def test_more_than_the_limit_never_fits() -> None:
    """QuotaExceeded without a time to retry at, and not retriable: unlike one that only waits for the window."""
    world = World(SETTINGS)
    error = consume(world, 101).error
    assert isinstance(error, QuotaExceeded)
    assert (None, False) == (error.retry_after_s, error.retriable)
    consume(world, 100).ok()
    waits = consume(world, 1).error
    assert waits is not None
    assert waits.retriable
    assert status(world, 101).retry_after_ms is None


def test_a_flood_of_refusals_is_one_event_a_second_with_a_count() -> None:
    """Refusals within a second of the last one told are counted, and told by the next event."""
    world = World(SETTINGS)
    counts = []
    for _ in range(25):
        for event in consume(world, 1000).events:
            assert isinstance(event, QuotaRefused)
            counts.append((event.recorded_at - START, event.count))
        world.now += 100_000
    assert [(0, 1), (SECOND, 10), (2 * SECOND, 10)] == counts
    assert world.account().has_uncounted_refusals
    command = c.RecordRefusals(tenant=TENANT, user=USER)
    world.now = START + 3 * SECOND - 1
    assert [] == world.run(command).events
    world.now += 1
    outcome = world.run(command)
    assert isinstance(outcome.ok(), Recorded)
    (told,) = outcome.events
    assert isinstance(told, QuotaRefused)
    assert 4 == told.count
    assert not world.account().has_uncounted_refusals
    assert isinstance(world.run(command).ok(), Recorded)


def test_refusals_are_coalesced_by_resource() -> None:
    """Each resource has its own event a second."""
    world = World(SETTINGS)
    assert 1 == len(consume(world, 1000).events)
    assert 1 == len(consume(world, 1000, "calls").events)
    assert 0 == len(consume(world, 1000).events)


def test_crossing_the_threshold_upwards_is_told_once() -> None:
    """QuotaThresholdReached when 80 % is reached, not again above it, again after usage fell below."""
    world = World(SETTINGS)
    assert 1 == len(consume(world, 79).events)
    _, reached = consume(world, 1).events
    assert isinstance(reached, QuotaThresholdReached)
    assert (Decimal(80), Decimal(100), 80, 3) == (
        reached.used,
        reached.limit,
        reached.threshold_percent,
        reached.version,
    )
    assert 1 == len(consume(world, 10).events)
    world.now += HOUR
    assert 2 == len(consume(world, 90).events)


def test_the_users_own_quota_goes_before_the_plans_and_the_tenants() -> None:
    """Setting a plan, setting the user's own, and removing it again."""
    world = World(SETTINGS)
    assert ("tenant", Decimal(100)) == (status(world, 0).source, status(world, 0).limit)
    world.run(c.SetUserLimits(tenant=TENANT, user=USER, plan="pro")).ok()
    assert ("plan", Decimal(1000)) == (status(world, 0).source, status(world, 0).limit)
    world.run(c.SetQuota(tenant=TENANT, user=USER, resource="tokens", limit=Decimal(7))).ok()
    assert ("user", Decimal(7)) == (status(world, 0).source, status(world, 0).limit)
    world.run(c.SetQuota(tenant=TENANT, user=USER, resource="tokens", limit=None)).ok()
    assert "plan" == status(world, 0).source


def test_usage_counts_whichever_limit_applied_to_it() -> None:
    """A limit that is set later counts what was consumed before."""
    world = World(SETTINGS)
    consume(world, 50).ok()
    world.run(c.SetQuota(tenant=TENANT, user=USER, resource="tokens", limit=Decimal(60), period_ms=86_400_000)).ok()
    assert isinstance(consume(world, 11).error, QuotaExceeded)
    world.now += 2 * HOUR
    assert isinstance(consume(world, 11).error, QuotaExceeded)  # still within the day
    consume(world, 10).ok()


def test_a_report_lists_every_quota_that_counts() -> None:
    """The user's own, the plan's and the tenant's, by resource, with what is used and when it resets."""
    world = World(SETTINGS)
    world.run(c.SetUserLimits(tenant=TENANT, user=USER, plan="pro")).ok()
    world.run(c.SetQuota(tenant=TENANT, user=USER, resource="storage_mb", limit=Decimal(5))).ok()
    consume(world, 3, "calls").ok()
    world.now += SECOND
    report = world.run(c.ReportQuota(tenant=TENANT, user=USER)).ok()
    assert isinstance(report, QuotaReport)
    assert [
        ("calls", "tenant", Decimal(3), START + 60 * SECOND),
        ("storage_mb", "user", Decimal(0), None),
        ("tokens", "plan", Decimal(0), None),
    ] == [(row.resource, row.source, row.used, row.resets_at) for row in report.quotas]
    one = world.run(c.ReportQuota(tenant=TENANT, user=USER, resource="calls")).ok()
    assert isinstance(one, QuotaReport)
    assert ["calls"] == [row.resource for row in one.quotas]


def test_a_reservation_gives_back_what_was_not_used_once() -> None:
    """Released once; the amount counts no more; a second release finds nothing."""
    world = World(SETTINGS)
    outcome = consume(world, 80, reserve=True)
    result = outcome.ok()
    assert isinstance(result, QuotaStatus)
    reservation_id = parse_id(result.reservation_id or "")
    assert outcome.events[0].event_id == reservation_id
    release = c.ReleaseQuota(tenant=TENANT, user=USER, reservation_id=reservation_id, amount=Decimal(50))
    outcome = world.run(release)
    (event,) = outcome.events
    assert isinstance(event, QuotaReleased)
    given_back = outcome.ok()
    assert isinstance(given_back, QuotaGivenBack)
    assert ("tokens", Decimal(50)) == (given_back.resource, given_back.amount)
    assert Decimal(30) == status(world, 0).used
    assert isinstance(world.run(release).error, ReservationNotOpen)


def test_a_reservation_gives_back_all_of_itself_and_not_more() -> None:
    """No amount means all; more than was reserved is refused."""
    world = World(SETTINGS)
    reservation_id = consume(world, 80, reserve=True).events[0].event_id
    too_much = c.ReleaseQuota(tenant=TENANT, user=USER, reservation_id=reservation_id, amount=Decimal(81))
    assert isinstance(world.run(too_much).error, InvalidInput)
    world.run(c.ReleaseQuota(tenant=TENANT, user=USER, reservation_id=reservation_id)).ok()
    assert Decimal(0) == status(world, 0).used


def test_a_reservation_is_open_until_its_period_ends() -> None:
    """Then the amount has left the window anyway."""
    world = World(SETTINGS)
    reservation_id = consume(world, 80, reserve=True).events[0].event_id
    world.now += HOUR
    release = c.ReleaseQuota(tenant=TENANT, user=USER, reservation_id=reservation_id)
    assert isinstance(world.run(release).error, ReservationNotOpen)


def test_consumption_without_reserve_can_not_be_released() -> None:
    """Only a reservation is open."""
    world = World(SETTINGS)
    event_id = consume(world, 80).events[0].event_id
    release = c.ReleaseQuota(tenant=TENANT, user=USER, reservation_id=event_id)
    assert isinstance(world.run(release).error, ReservationNotOpen)


def test_open_reservations_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """TooManyReservations says when one is over; then there is room again."""
    world = World(TenantSettings(Limits(quotas={"tokens": (Decimal(10**6), 3_600_000)})))
    for _ in range(account.RESERVATIONS_MAX):
        consume(world, 1, reserve=True).ok()
        world.now += 1
    error = consume(world, 1, reserve=True).error
    assert isinstance(error, TooManyReservations)
    assert error.retry_after_s is not None
    consume(world, 1).ok()
    world.now = START + HOUR
    consume(world, 1, reserve=True).ok()
    assert account.RESERVATIONS_MAX == len(world.account().quotas["tokens"].reservations)


def test_a_failed_log_in_is_a_fact_of_the_account() -> None:
    """With the address sealed by the user's key; without a seal for it, KeyUnavailable."""
    world = World()
    command = c.ReportAuthenticationFailure(
        tenant=TENANT, user=USER, method="password", reason="bad_credential", ip_address="::1"
    )
    outcome = world.run(command)
    (event,) = outcome.events
    assert isinstance(event, AuthenticationFailed)
    assert (1, b"'::1'") == (event.version, event.sealed_ip_address)
    assert isinstance(outcome.ok(), Recorded)
    unsealed = c.Prepared(command, world.ids.at(world.now), b"d" * 16)
    assert isinstance(world.run_prepared(unsealed).error, KeyUnavailable)


def test_a_quota_of_nothing_refuses_everything_but_nothing() -> None:
    """A limit of 0: an amount of 0 is allowed, and no division by it happens."""
    world = World(TenantSettings(Limits(quotas={"tokens": (Decimal(0), DAY // 1000)})))
    assert isinstance(consume(world, "0.000001").error, QuotaExceeded)
    consume(world, 0).ok()
    assert 100.0 == status(world, 0).percentage
