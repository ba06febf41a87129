"""The agent instances of one partition, and which session holds which.

`evolve_agents` changes the pool in place and reads nothing but the event. A retired instance leaves the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import AgentAcquired, AgentEvent, AgentRegistered, AgentReleased, AgentRetired, Event
from session_ledger.domain.ids import format_id

NOT_REPORTED = "not_reported"
RESETS = ("verified", "failed", NOT_REPORTED)


@dataclass(slots=True)
class Agent:
    """One instance. It belongs to a tenant: no other tenant's session ever gets it."""

    agent_id: bytes
    tenant: str
    agent_type: str
    capabilities: tuple[str, ...]
    version: int
    held_by: bytes | None = None
    """The session that leases it."""
    user: str = ""
    """Whose session that is."""


@dataclass(slots=True)
class AgentType:
    """The instances of one type of one tenant."""

    instances: dict[bytes, bool] = field(default_factory=dict)
    """Ids, free or held (the values of both mean nothing)."""
    free: dict[bytes, bool] = field(default_factory=dict)
    """Ids, the one that has been free the longest first."""


@dataclass(slots=True)
class AgentPool:
    """All instances of a partition, indexed by type (``tenant/type``; a tenant holds no "/") and by holder."""

    agents: dict[bytes, Agent] = field(default_factory=dict)
    types: dict[str, AgentType] = field(default_factory=dict)
    held: dict[bytes, list[bytes]] = field(default_factory=dict)
    """Session to the instances it leases, in the order it got them."""

    def held_by(self, session_id: bytes) -> list[Agent]:
        """The instances that a session leases, in the order it got them."""
        return [self.agents[agent_id] for agent_id in self.held.get(session_id, ())]

    def find_free(self, tenant: str, agent_type: str, capabilities: Iterable[str]) -> Agent | None:
        """The instance with all these capabilities that has been free the longest; None: there is none."""
        known = self.types.get(f"{tenant}/{agent_type}")
        if known is None:
            return None
        required = set(capabilities)
        for agent_id in known.free:
            agent = self.agents[agent_id]
            if required.issubset(agent.capabilities):
                return agent
        return None

    def is_known(self, tenant: str, agent_type: str, capabilities: Iterable[str]) -> bool:
        """Whether an instance of that type with all these capabilities is registered, free or held."""
        known = self.types.get(f"{tenant}/{agent_type}", AgentType())
        required = set(capabilities)
        return any(required.issubset(self.agents[agent_id].capabilities) for agent_id in known.instances)


def evolve_agents(pool: AgentPool, event: Event) -> None:
    """Fold one event in; events of other streams change nothing. Raises LogCorrupt where it can not follow."""
    fold = _FOLDS.get(type(event))
    if fold is not None:
        fold(pool, event)


def _next(pool: AgentPool, event: AgentEvent) -> Agent:
    agent = pool.agents.get(event.agent_id)
    if agent is None or event.version != agent.version + 1:
        raise _corrupt(event, "no registered instance" if agent is None else f"version {agent.version}")
    agent.version = event.version
    return agent


def _corrupt(event: AgentEvent, state: str) -> LogCorrupt:
    return LogCorrupt(
        f"{type(event).__name__} version {event.version} of agent {format_id(event.agent_id)} follows {state}"
    )


def _registered(pool: AgentPool, event: AgentRegistered) -> None:
    if event.agent_id in pool.agents or event.version != 1:
        raise _corrupt(event, "a registered instance" if event.agent_id in pool.agents else "nothing")
    pool.agents[event.agent_id] = Agent(event.agent_id, event.tenant, event.agent_type, tuple(event.capabilities), 1)
    known = pool.types.setdefault(f"{event.tenant}/{event.agent_type}", AgentType())
    known.instances[event.agent_id] = True
    known.free[event.agent_id] = True


def _acquired(pool: AgentPool, event: AgentAcquired) -> None:
    agent = _next(pool, event)
    if agent.held_by is not None:
        raise _corrupt(event, f"a lease by session {format_id(agent.held_by)}")
    agent.held_by = event.session_id
    agent.user = event.user
    del pool.types[f"{agent.tenant}/{agent.agent_type}"].free[agent.agent_id]
    pool.held.setdefault(event.session_id, []).append(agent.agent_id)


def _released(pool: AgentPool, event: AgentReleased) -> None:
    agent = _next(pool, event)
    if agent.held_by != event.session_id:
        raise _corrupt(event, "no lease by that session")
    agent.held_by = None
    agent.user = ""
    pool.types[f"{agent.tenant}/{agent.agent_type}"].free[agent.agent_id] = True
    leases = pool.held[event.session_id]
    leases.remove(agent.agent_id)
    if not leases:
        del pool.held[event.session_id]


def _retired(pool: AgentPool, event: AgentRetired) -> None:
    agent = _next(pool, event)
    if agent.held_by is not None:
        raise _corrupt(event, f"a lease by session {format_id(agent.held_by)}")
    del pool.agents[agent.agent_id]
    key = f"{agent.tenant}/{agent.agent_type}"
    known = pool.types[key]
    del known.free[agent.agent_id]
    del known.instances[agent.agent_id]
    if not known.instances:
        del pool.types[key]


_FOLDS: dict[type[Event], Callable[[AgentPool, Any], None]] = {
    AgentRegistered: _registered,
    AgentAcquired: _acquired,
    AgentReleased: _released,
    AgentRetired: _retired,
}
