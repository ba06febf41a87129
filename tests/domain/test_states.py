"""The folded states: they fit into a state file, hold nothing that is over, and take only what can follow."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from session_ledger.domain import commands as c
from session_ledger.domain.account import Account, evolve_account
from session_ledger.domain.agents import AgentPool, evolve_agents
from session_ledger.domain.control import ControlState, Limits, TenantSettings, TenantState
from session_ledger.domain.decide import evolve
from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import Event
from tests.domain.test_agents import ONE, TWO
from tests.domain.test_import import history
from tests.domain.world import MINUTE, SECOND, TENANT, USER, World

QUOTAS = {"tokens": (Decimal("100.5"), 3_600_000)}


def busy_world() -> World:
    """An account and a pool with something in every field."""
    world = World(TenantSettings(Limits(quotas=QUOTAS)))
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="writer", agent_id=ONE, capabilities=("a",))).ok()
    world.run(c.RegisterAgent(tenant=TENANT, agent_type="writer", agent_id=TWO)).ok()
    session_id = world.create()
    world.say(session_id).ok()
    world.run(c.AcquireAgent(tenant=TENANT, user=USER, session_id=session_id, agent_type="writer")).ok()
    world.run(c.SetUserLimits(tenant=TENANT, user=USER, max_sessions=3, limit_policy="refuse", plan="pro")).ok()
    world.run(c.SetQuota(tenant=TENANT, user=USER, resource="tokens", limit=Decimal("99.5"))).ok()
    for amount, reserve in (("1.25", True), ("2", False), ("1000", False), ("1000", False)):
        command = c.ConsumeQuota(tenant=TENANT, user=USER, resource="tokens", amount=Decimal(amount), reserve=reserve)
        world.run(command)
        world.now += 200_000
    world.run(history(1, 2, final=False)).ok()
    return world


def test_an_account_survives_the_state_file() -> None:
    """Through MessagePack and back it is equal, and folds on as before."""
    world = busy_world()
    account = world.account()
    assert account.quotas["tokens"].uncounted is not None
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(account), type=Account)
    assert account == again
    world.now += SECOND
    event = world.say(next(iter(account.sessions))).events[0]
    evolve_account(again, event, len(world.events))
    assert account == again


def test_a_pool_survives_the_state_file() -> None:
    """Likewise, the order of the free instances included."""
    world = busy_world()
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(world.agents), type=AgentPool)
    assert world.agents == again
    assert msgspec.msgpack.encode(world.agents) == msgspec.msgpack.encode(again)
    session_id = next(iter(world.account().sessions))
    event = world.run(c.AcquireAgent(tenant=TENANT, user=USER, session_id=session_id, agent_type="writer")).events[0]
    evolve_agents(again, event)
    assert world.agents == again


def test_the_control_state_survives_likewise() -> None:
    """Tenants, plans and quotas."""
    settings = TenantSettings(Limits(quotas=QUOTAS), {"pro": Limits(max_sessions=3)})
    state = ControlState({"acme": TenantState(2, settings)}, {b"f" * 8: "name"}, {b"f" * 8: b"d" * 16}, 7)
    assert state == msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=ControlState)


def test_folding_the_log_anew_gives_equal_states() -> None:
    """Byte for byte, but for refusals that no event tells yet."""
    world = busy_world()
    assert world.dump() == world.folded_anew().dump()


def test_sessions_that_are_over_leave_nothing() -> None:
    """An account stays within 3 kB however many sessions ended: what it holds is live or ten minutes old."""
    world, sizes = World(), []
    for count in range(2000):
        session_id = world.create()
        world.say(session_id).ok()
        world.now += 10 * MINUTE
        if count % 3 == 0:
            world.run(c.EndSession(tenant=TENANT, user=USER, session_id=session_id)).ok()
        if count % 200 == 199:
            sizes.append(len(world.dump()))
    assert max(sizes) <= 3000


def test_an_event_that_can_not_follow_is_corruption() -> None:
    """A version or a message number left out, a second creation, an event of a session that is over."""
    world = busy_world()
    first: dict[str, Any] = {}
    for event in world.events:
        first.setdefault(type(event).__name__, event)
    message, created = first["MessageAdded"], first["SessionCreated"]
    consumed, acquired = first["QuotaConsumed"], first["AgentAcquired"]
    bad: list[Event] = [
        message,
        replace(message, version=3),
        replace(message, session_id=b"?" * 16),
        created,
        replace(created, session_id=b"?" * 16, version=2),
        consumed,
        acquired,
        replace(acquired, version=4),
        replace(acquired, agent_id=b"?" * 16),
    ]
    for event in bad:
        with pytest.raises(LogCorrupt, match=type(event).__name__):
            evolve(world.account(), world.agents, event, 99)
