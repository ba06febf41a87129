"""The facade's commands about agents."""

from __future__ import annotations

from collections.abc import Sequence

from session_ledger.domain import commands as c
from session_ledger.domain import results as r
from session_ledger.domain.ids import SLOTS, parse_id, with_slot
from session_ledger.domain.shapes import number
from session_ledger.ledger.methods import Commands, Id, optional_id, optional_ms, word_set


class AgentMethods(Commands):
    """Register, acquire, release, retire."""

    def register_agent(
        self,
        tenant: str,
        agent_type: str,
        *,
        capabilities: Sequence[str] = (),
        partition: int = 0,
        command_id: Id | None = None,
    ) -> r.AgentChanged:
        """Register an agent instance in a partition; only that partition's sessions can acquire it."""
        number(partition, "partition", 0, SLOTS - 1)
        own = optional_id(command_id, "command_id") or self._new_id()
        command = c.RegisterAgent(
            tenant=tenant,
            agent_type=agent_type,
            capabilities=word_set(capabilities, "capabilities"),
            agent_id=with_slot(own, partition),  # derived, so that a repeat registers the same instance
            command_id=own,
        )
        return self._run(command, r.AgentChanged)

    def acquire_agent(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        agent_type: str,
        *,
        capabilities: Sequence[str] = (),
        waited_s: float | None = None,
        command_id: Id | None = None,
    ) -> r.AgentLeased:
        """Lease a free instance for a live session. Raises NoAgentAvailable (retriable), AgentTypeUnknown.

        `waited_s`: how long the caller has waited for one; it is recorded with the lease or the refusal.
        """
        command = c.AcquireAgent(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            agent_type=agent_type,
            capabilities=word_set(capabilities, "capabilities"),
            waited_ms=optional_ms(waited_s, "waited_s"),
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentLeased)

    def release_agent(
        self,
        tenant: str,
        user: str,
        session_id: Id,
        agent_id: Id,
        *,
        reset: str = "not_reported",
        command_id: Id | None = None,
    ) -> r.AgentChanged:
        """End a lease. `reset`: verified, failed or not_reported. Raises AgentNotHeld."""
        command = c.ReleaseAgent(
            tenant=tenant,
            user=user,
            session_id=parse_id(session_id, "session_id"),
            agent_id=parse_id(agent_id, "agent_id"),
            reset=reset,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentChanged)

    def retire_agent(
        self, tenant: str, agent_id: Id, *, reason: str = "retired", force: bool = False, command_id: Id | None = None
    ) -> r.AgentChanged:
        """Take an instance out. Raises AgentNotFound, AgentBusy (unless `force`: the lease is released first)."""
        command = c.RetireAgent(
            tenant=tenant,
            agent_id=parse_id(agent_id, "agent_id"),
            reason=reason,
            force=force,
            command_id=optional_id(command_id, "command_id"),
        )
        return self._run(command, r.AgentChanged)
