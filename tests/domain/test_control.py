"""The control log: tenants' settings, resolved piece by piece, and published schemas."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.account import Account
from session_ledger.domain.answers import result_of
from session_ledger.domain.control import DEFAULTS, ControlState, Limits, TenantSettings, decide_control, evolve_control
from session_ledger.domain.decide import Decision
from session_ledger.domain.errors import CommandIdReused, InvalidInput, LogCorrupt
from session_ledger.domain.events import LimitsSet, QuotaDefault, SchemaPublished
from session_ledger.domain.results import Recorded
from tests.domain.world import DAY, START, Ids, World

ADA = Account("acme", "ada")
PRO = Account("acme", "pam", plan="pro")


class Control:
    """A control log in memory."""

    def __init__(self) -> None:
        self.state, self.ids, self.position = ControlState(), Ids(), 0

    def run(self, command: c.Command, command_id: bytes | None = None, digest: bytes = b"d" * 16) -> Decision:
        prepared = c.Prepared(command, command_id or self.ids.at(START), digest)
        decision = decide_control(self.state, prepared, START, lambda: self.ids.at(START))
        for event in decision.events:
            self.position += 1
            evolve_control(self.state, event, self.position)
        return decision


def test_the_built_in_defaults() -> None:
    """What counts where nothing was set."""
    assert (5, "evict", 80) == (
        DEFAULTS.max_sessions(ADA),
        DEFAULTS.limit_policy(ADA),
        DEFAULTS.alert_threshold_percent(ADA),
    )
    assert [30 * 60_000, 86_400_000, 30 * 60_000] == [
        DEFAULTS.idle_timeout_ms(ADA, kind) for kind in ("standard", "website", "sensitive")
    ]
    assert [30 * DAY, 30 * DAY, 7 * DAY] == [
        DEFAULTS.ttl_ms(ADA, kind) * 1000 for kind in ("standard", "website", "sensitive")
    ]
    assert DEFAULTS.quota(ADA, "tokens") is None


def test_each_piece_is_resolved_by_itself() -> None:
    """User, plan, tenant, built-in: the first that sets a piece counts, for that piece."""
    control = Control()
    control.run(
        c.SetLimits(
            tenant="acme",
            max_sessions=3,
            ttl_ms=1000,
            idle_timeout_ms=500,
            website_idle_timeout_ms=700,
            sensitive_ttl_ms=600,
            quotas={"tokens": (Decimal(10), 1000), "calls": (Decimal(1), 1000)},
        )
    )
    control.run(
        c.SetLimits(
            tenant="acme",
            plan="pro",
            limit_policy="refuse",
            max_sessions=9,
            alert_threshold_percent=50,
            quotas={"tokens": (Decimal(99), 2000)},
        )
    )
    settings = control.state.settings_of("acme")
    assert (3, "evict", 80) == (
        settings.max_sessions(ADA),
        settings.limit_policy(ADA),
        settings.alert_threshold_percent(ADA),
    )
    assert (9, "refuse", 50) == (
        settings.max_sessions(PRO),
        settings.limit_policy(PRO),
        settings.alert_threshold_percent(PRO),
    )
    own = Account("acme", "olga", max_sessions=1, limit_policy="evict", plan="pro")
    assert (1, "evict", 50) == (
        settings.max_sessions(own),
        settings.limit_policy(own),
        settings.alert_threshold_percent(own),
    )
    assert (1000, 600, 500, 700) == (
        settings.ttl_ms(PRO, "standard"),
        settings.ttl_ms(PRO, "sensitive"),
        settings.idle_timeout_ms(PRO, "sensitive"),
        settings.idle_timeout_ms(PRO, "website"),
    )
    assert (Decimal(99), 2000, "plan") == settings.quota(PRO, "tokens")
    assert (Decimal(1), 1000, "tenant") == settings.quota(PRO, "calls")
    assert (Decimal(10), 1000, "tenant") == settings.quota(ADA, "tokens")
    assert ["calls", "tokens"] == settings.resources(PRO)


def test_settings_are_set_as_a_whole() -> None:
    """What a later LimitsSet leaves out is no longer set; the plans stay as they are."""
    control = Control()
    control.run(c.SetLimits(tenant="acme", plan="pro", max_sessions=9))
    control.run(c.SetLimits(tenant="acme", max_sessions=3))
    control.run(c.SetLimits(tenant="acme", ttl_ms=1000))
    settings = control.state.settings_of("acme")
    assert TenantSettings(Limits(ttl_ms=1000), {"pro": Limits(max_sessions=9)}) == settings
    assert DEFAULTS == control.state.settings_of("globex")


def test_the_event_carries_the_quotas_sorted() -> None:
    """Versions count up within the tenant's stream."""
    control = Control()
    control.run(c.SetLimits(tenant="acme"))
    quotas = {"b": (Decimal(1), 1000), "a": (Decimal(2), 2000)}
    (event,) = control.run(c.SetLimits(tenant="acme", quotas=quotas)).events
    assert isinstance(event, LimitsSet)
    assert (QuotaDefault("a", Decimal(2), 2000), QuotaDefault("b", Decimal(1), 1000)) == event.quotas
    assert 2 == event.version


def test_a_sensitive_session_lives_a_week_at_most_whatever_is_recorded() -> None:
    """Validation refuses more; the resolution caps it besides."""
    settings = TenantSettings(Limits(sensitive_ttl_ms=100 * 86_400_000))
    assert 7 * 86_400_000 == settings.ttl_ms(ADA, "sensitive")


def test_a_schema_is_published_once() -> None:
    """A known fingerprint records nothing."""
    control = Control()
    command = c.PublishSchema(tenant="", name="x", fingerprint=b"f" * 8, schema_json="{}")
    (event,) = control.run(command).events
    assert isinstance(event, SchemaPublished)
    assert control.state.knows_schema(b"f" * 8)
    again = control.run(command)
    assert ([], Recorded()) == (again.events, again.result)


@pytest.mark.parametrize("change", [{"name": "y"}, {"schema_json": "{ }"}])
def test_a_published_fingerprint_takes_no_other_schema(change: dict[str, str]) -> None:
    """Another name or text under it is refused, not taken for the one that is known."""
    control = Control()
    command = c.PublishSchema(tenant="", name="x", fingerprint=b"f" * 8, schema_json="{}")
    control.run(command)
    refused = control.run(replace(command, **change))  # type: ignore[arg-type]
    assert isinstance(refused.error, InvalidInput)
    assert [] == refused.events


def test_control_commands_are_idempotent() -> None:
    """The same id and body: a repeat of the first; another body: refused."""
    control = Control()
    command_id = control.ids.at(START)
    command = c.SetLimits(tenant="acme", max_sessions=3)
    first = control.run(command, command_id)
    again = control.run(command, command_id)
    assert ([], (1, 1)) == (again.events, again.repeat)
    assert isinstance(result_of(command, first.events, -1, 1), Recorded)
    assert isinstance(control.run(command, command_id, b"x" * 16).error, CommandIdReused)


def test_what_does_not_belong_there_is_corruption() -> None:
    """An event of a partition, or a version that does not follow, is refused by the fold."""
    world = World()
    world.create()
    with pytest.raises(LogCorrupt, match="SessionCreated"):
        evolve_control(ControlState(), world.events[0], 1)
    control = Control()
    (event,) = control.run(c.SetLimits(tenant="acme")).events
    with pytest.raises(LogCorrupt, match="version 1"):
        evolve_control(control.state, event, 2)
    with pytest.raises(TypeError, match="CreateSession"):
        control.run(c.CreateSession(tenant="acme", user="ada"))
