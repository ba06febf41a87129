"""Decisions about agent instances, and the pool that they are folded into."""

from __future__ import annotations

from dataclasses import replace

from session_ledger.domain import commands as c
from session_ledger.domain.errors import (
    AgentBusy,
    AgentNotFound,
    AgentNotHeld,
    AgentTypeUnknown,
    InvalidInput,
    NoAgentAvailable,
    SessionNotFound,
)
from session_ledger.domain.events import AgentAcquired, AgentReleased, AgentRetired
from session_ledger.domain.ids import derived_session_id, format_id
from session_ledger.domain.results import AgentChanged, AgentLeased
from tests.domain.world import START, TENANT, USER, Outcome, World

ONE, TWO = (derived_session_id(name, START, 0) for name in "12")


def register(world: World, agent_id: bytes, *capabilities: str, tenant: str = TENANT) -> Outcome:
    """RegisterAgent of a writer."""
    return world.run(c.RegisterAgent(tenant=tenant, agent_type="writer", capabilities=capabilities, agent_id=agent_id))


def acquire(world: World, session_id: bytes, *capabilities: str, agent_type: str = "writer") -> Outcome:
    """AcquireAgent for a session."""
    command = c.AcquireAgent(tenant=TENANT, user=USER, session_id=session_id, agent_type=agent_type)
    return world.run(replace(command, capabilities=capabilities))


def leased(outcome: Outcome) -> str:
    """The instance that was leased."""
    result = outcome.ok()
    assert isinstance(result, AgentLeased)
    return result.agent_id


def test_the_instance_that_was_free_the_longest_is_leased() -> None:
    """In the order of registration, then of release."""
    world = World()
    session_id = world.create()
    for agent_id in (ONE, TWO):
        register(world, agent_id).ok()
    assert [format_id(ONE), format_id(TWO)] == [leased(acquire(world, session_id)) for _ in range(2)]
    for agent_id in (TWO, ONE):
        world.run(c.ReleaseAgent(tenant=TENANT, user=USER, session_id=session_id, agent_id=agent_id)).ok()
    assert [format_id(TWO), format_id(ONE)] == [leased(acquire(world, session_id)) for _ in range(2)]
    assert {session_id: [TWO, ONE]} == world.agents.held


def test_all_capabilities_asked_for_must_be_there() -> None:
    """The event records what was asked for, sorted."""
    world = World()
    session_id = world.create()
    register(world, ONE, "sql").ok()
    register(world, TWO, "web", "sql", "web").ok()
    outcome = acquire(world, session_id, "web", "sql")
    (event,) = outcome.events
    assert isinstance(event, AgentAcquired)
    assert (TWO, ("sql", "web"), 2, USER) == (event.agent_id, event.required, event.version, event.user)


def test_an_unknown_type_and_a_busy_one_are_told_apart() -> None:
    """AgentTypeUnknown will not go away by waiting; NoAgentAvailable will, and says so."""
    world = World()
    session_id = world.create()
    register(world, ONE, "sql").ok()
    assert isinstance(acquire(world, session_id, agent_type="reader").error, AgentTypeUnknown)
    assert isinstance(acquire(world, session_id, "web").error, AgentTypeUnknown)
    acquire(world, session_id, "sql").ok()
    error = acquire(world, session_id, "sql").error
    assert isinstance(error, NoAgentAvailable)
    assert error.retriable


def test_instances_belong_to_a_tenant() -> None:
    """Another tenant's instances are neither leased nor found."""
    world = World()
    session_id = world.create()
    register(world, ONE, tenant="globex").ok()
    assert isinstance(acquire(world, session_id).error, AgentTypeUnknown)
    assert isinstance(world.run(c.RetireAgent(tenant=TENANT, agent_id=ONE)).error, AgentNotFound)
    release = c.ReleaseAgent(tenant=TENANT, user=USER, session_id=session_id, agent_id=ONE)
    assert isinstance(world.run(release).error, AgentNotFound)


def test_only_a_live_session_leases() -> None:
    """No session, no agent."""
    world = World()
    register(world, ONE).ok()
    assert isinstance(acquire(world, b"?" * 16).error, SessionNotFound)


def test_only_the_holder_releases() -> None:
    """Another session of the same user can not; the reset that was reported is recorded."""
    world = World()
    holder, other = world.create(), world.create()
    register(world, ONE).ok()
    acquire(world, holder).ok()
    release = c.ReleaseAgent(tenant=TENANT, user=USER, session_id=other, agent_id=ONE)
    assert isinstance(world.run(release).error, AgentNotHeld)
    outcome = world.run(replace(release, session_id=holder, reset="verified"))
    (event,) = outcome.events
    assert isinstance(event, AgentReleased)
    assert ("released", "verified") == (event.reason, event.reset)
    assert isinstance(outcome.ok(), AgentChanged)


def test_registering_again_is_harmless() -> None:
    """The same instance: nothing recorded; another type or other capabilities under its id: refused."""
    world = World()
    register(world, ONE, "a", "b").ok()
    again = register(world, ONE, "b", "a")
    assert isinstance(again.ok(), AgentChanged)
    assert [] == again.events
    assert isinstance(register(world, ONE).error, InvalidInput)


def test_an_id_that_is_somebody_elses_is_not_registered() -> None:
    """Another tenant's instance, live or retired, or a session, live or over: nothing tells which."""
    world = World()
    register(world, ONE, tenant="globex").ok()
    register(world, TWO, tenant="globex").ok()
    world.run(c.RetireAgent(tenant="globex", agent_id=TWO)).ok()
    live, over = world.create(), world.create()
    world.run(c.EndSession(tenant=TENANT, user=USER, session_id=over)).ok()
    said = set()
    for agent_id in (ONE, TWO, live, over):
        outcome = register(world, agent_id)
        assert isinstance(outcome.error, InvalidInput)
        assert [] == outcome.events
        said.add(str(outcome.error).replace(format_id(agent_id), ""))
    assert 1 == len(said)


def test_a_retired_instance_leaves_and_does_not_come_back() -> None:
    """It is leased no more, its type is unknown when none is left, and its id is not registered again."""
    world = World()
    session_id = world.create()
    register(world, ONE).ok()
    (event,) = world.run(c.RetireAgent(tenant=TENANT, agent_id=ONE, reason="old")).events
    assert isinstance(event, AgentRetired)
    assert ("old", 2, "") == (event.reason, event.version, event.user)
    assert ({}, {}) == (world.agents.agents, world.agents.types)
    assert isinstance(acquire(world, session_id).error, AgentTypeUnknown)
    assert isinstance(register(world, ONE).error, InvalidInput)


def test_a_held_instance_is_retired_by_force_only() -> None:
    """The lease is released first, told as a fact of the user whose session it was; a repeat answers the same."""
    world = World()
    session_id = world.create()
    register(world, ONE).ok()
    acquire(world, session_id).ok()
    assert isinstance(world.run(c.RetireAgent(tenant=TENANT, agent_id=ONE)).error, AgentBusy)
    prepared = world.prepare(c.RetireAgent(tenant=TENANT, agent_id=ONE, force=True))
    outcome = world.run_prepared(prepared)
    released, retired = outcome.events
    assert isinstance(released, AgentReleased)
    assert isinstance(retired, AgentRetired)
    assert (USER, "retired", None) == (released.user, released.reason, released.command_id)
    assert replace(outcome.ok(), repeated=True) == world.run_prepared(prepared).ok()
    assert {} == world.agents.held
