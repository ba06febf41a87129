"""Facts about audits: reveals, reads, findings, alerts, and refused acquisitions."""

from __future__ import annotations

from typing import Any

import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.errors import FindingNotFound, NoAgentAvailable, TooManyFindings
from session_ledger.domain.events import (
    AgentAcquired,
    AgentRefused,
    AlertRaised,
    AuditRead,
    ContentRevealed,
    LeakAcknowledged,
    LeakFound,
)
from session_ledger.domain.ids import new_slotted_id
from session_ledger.domain.results import Recorded
from tests.domain.world import TENANT, USER, World

WHO: dict[str, Any] = {"tenant": TENANT, "user": USER}
ID = bytes(6) + b"\x70\x00\x80" + bytes(7)


def finding(number: int = 1) -> c.ReportLeak:
    """A finding with an id of its own."""
    return c.ReportLeak(
        **WHO,
        finding_id=number.to_bytes(16, "big"),
        kind="text",
        severity="error",
        direction="known",
        session_id=ID,
        leak_position=7,
        source_tenant="acme",
        source_user="bob",
    )


@pytest.mark.parametrize("user", ["ada", ""])
def test_reveals_and_reads_are_facts_of_the_user_or_the_tenant(user: str) -> None:
    """Each is recorded, also for the tenant as a whole."""
    world = World()
    reveal = c.RevealContent(tenant=TENANT, user=user, revealed_by="eve", reason="case 7", query_digest=bytes(16))
    read = c.RecordAuditRead(tenant=TENANT, user=user, read_by="eve", action="timeline")
    alert = c.RaiseAlert(tenant=TENANT, user=user, kind="errors", value=None)
    for command in (reveal, read, alert):
        assert isinstance(world.run(command).ok(), Recorded)
    assert [ContentRevealed, AuditRead, AlertRaised] == [type(event) for event in world.events]
    assert [1, 2, 3] == [event.version for event in world.events]


def test_a_finding_is_recorded_once_and_closed_once() -> None:
    """Found again it adds nothing; an unknown one can not be acknowledged."""
    world = World()
    world.run(finding())
    world.run(finding())
    with pytest.raises(FindingNotFound):
        world.run(c.AcknowledgeLeak(**WHO, finding_id=bytes(16), acknowledged_by="eve", reason="a quote")).ok()
    for _ in range(2):
        world.run(c.AcknowledgeLeak(**WHO, finding_id=finding().finding_id, acknowledged_by="eve", reason="a quote"))
    world.run(finding())
    assert [LeakFound, LeakAcknowledged] == [type(event) for event in world.events]


def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more than are kept is refused, and nothing of it recorded."""
    monkeypatch.setattr("session_ledger.domain.decide_audit.FINDINGS_MAX", 2)
    world = World()
    world.run(finding(1))
    world.run(finding(2))
    with pytest.raises(TooManyFindings):
        world.run(finding(3)).ok()
    assert 2 == len(world.events)


def test_refused_acquisitions_are_told_without_a_flood() -> None:
    """The first at once, those of the next second in one fact with their count; a wait is told with its lease."""
    world = World()
    agent_id = new_slotted_id(world.now, 0)
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="helper", agent_id=agent_id)).ok()
    first, second = world.create(), world.create()
    world.run(c.AcquireAgent(**WHO, session_id=first, agent_type="helper", waited_ms=1200))
    for _ in range(5):
        with pytest.raises(NoAgentAvailable):
            world.run(c.AcquireAgent(**WHO, session_id=second, agent_type="helper", waited_ms=40)).ok()
    world.now += 1_100_000
    world.run(c.RecordRefusals(**WHO))
    told = [event for event in world.events if isinstance(event, AgentRefused)]
    assert [(1, 40), (4, 40)] == [(event.count, event.waited_ms) for event in told]
    leased = [event for event in world.events if isinstance(event, AgentAcquired)]
    assert [(agent_id, 1200)] == [(event.agent_id, event.waited_ms) for event in leased]
    assert world.dump() == world.folded_anew().dump()
