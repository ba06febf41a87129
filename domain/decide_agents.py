"""Decisions about agent instances: register, acquire for a session, release, retire."""

from __future__ import annotations

from session_ledger.domain.account import REFUSED_EVERY_US, Account, AgentRefusals
from session_ledger.domain.agents import NOT_REPORTED
from session_ledger.domain.commands import AcquireAgent, Prepared, RegisterAgent, ReleaseAgent, RetireAgent
from session_ledger.domain.decision import Context, Decision, NewId, live_session, own_event_id
from session_ledger.domain.errors import (
    AgentBusy,
    AgentNotFound,
    AgentNotHeld,
    AgentTypeUnknown,
    InvalidInput,
    NoAgentAvailable,
)
from session_ledger.domain.events import (
    AgentAcquired,
    AgentRefused,
    AgentRegistered,
    AgentReleased,
    AgentRetired,
    Event,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import AgentChanged


def register_agent(context: Context, command: RegisterAgent, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """AgentRegistered; nothing where the same instance is registered already."""
    agent_id = command.agent_id
    if agent_id is None:
        return Decision([], InvalidInput("agent_id", "none", "must be given: it carries the partition"))
    capabilities = tuple(sorted(set(command.capabilities)))
    known = context.agents.agents.get(agent_id)
    if context.taken or (known is not None and known.tenant != command.tenant):
        return Decision([], InvalidInput("agent_id", f"{format_id(agent_id)}, which is in use", "must be new"))
    if known is not None:
        if (known.agent_type, known.capabilities) != (command.agent_type, capabilities):
            seen = f"{format_id(agent_id)}, which is registered with another type or other capabilities"
            return Decision([], InvalidInput("agent_id", seen, "must be new"))
        return Decision(
            [],
            result=AgentChanged(
                command_id=format_id(prepared.command_id), agent_id=format_id(agent_id), agent_type=known.agent_type
            ),
        )
    if context.ended is not None:
        seen = f"{format_id(agent_id)}, which is {context.ended}"
        return Decision(
            [], InvalidInput("agent_id", seen, "must be new: an instance that was retired does not come back")
        )
    head = (command.tenant, "", 1, now, prepared.command_id, prepared.digest)
    event_id = own_event_id(prepared, new_id)
    return Decision([AgentRegistered(event_id, *head, agent_id, command.agent_type, capabilities)])


def acquire_agent(context: Context, command: AcquireAgent, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """AgentAcquired: the free instance with these capabilities that has waited the longest."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    tenant, agent_type, required = command.tenant, command.agent_type, tuple(sorted(set(command.capabilities)))
    agent = context.agents.find_free(tenant, agent_type, required)
    if agent is None:
        wanted = f"{agent_type} with {', '.join(required)}" if required else agent_type
        if context.agents.is_known(tenant, agent_type, required):
            return _refuse(context, command, required, wanted, now, new_id)
        message = f"{wanted}: no instance is registered in partition {context.partition}; register one"
        return Decision([], AgentTypeUnknown(message))
    return Decision(
        [
            AgentAcquired(
                own_event_id(prepared, new_id),
                tenant,
                command.user,
                agent.version + 1,
                now,
                prepared.command_id,
                prepared.digest,
                agent.agent_id,
                agent.agent_type,
                command.session_id,
                required,
                command.waited_ms,
            )
        ]
    )


def _refuse(
    context: Context, command: AcquireAgent, required: tuple[str, ...], wanted: str, now: int, new_id: NewId
) -> Decision:
    """The refusal, told by an event unless one told of another within the last second: then it is counted."""
    account, agent_type = context.account, command.agent_type
    error = NoAgentAvailable(f"{wanted}: every instance is held by a session; try again later")
    waits = account.refused_agents.get(agent_type)
    counted = 0 if waits is None or waits.uncounted is None else waits.uncounted.count
    refusals = AgentRefusals(counted + 1, required, command.session_id, command.waited_ms)
    if waits is not None and now - waits.last_refused_at < REFUSED_EVERY_US:
        waits.uncounted = refusals
        return Decision([], error)
    return Decision([agent_refused(account, agent_type, refusals, account.version + 1, now, new_id)], error)


def agent_refused(
    account: Account, agent_type: str, told: AgentRefusals, version: int, now: int, new_id: NewId
) -> AgentRefused:
    """The fact that tells of these refusals."""
    head = (new_id(), account.tenant, account.user, version, now, None, None)
    return AgentRefused(*head, agent_type, told.required, told.session_id, told.count, told.waited_ms)


def release_agent(context: Context, command: ReleaseAgent, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """AgentReleased by the session that holds it."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    agent = context.agents.agents.get(command.agent_id)
    if agent is None or agent.tenant != command.tenant:
        return Decision([], _not_found(command.agent_id))
    if agent.held_by != command.session_id:
        return Decision([], AgentNotHeld(f"agent {format_id(command.agent_id)} is not held by this session"))
    return Decision(
        [
            AgentReleased(
                own_event_id(prepared, new_id),
                command.tenant,
                command.user,
                agent.version + 1,
                now,
                prepared.command_id,
                prepared.digest,
                agent.agent_id,
                agent.agent_type,
                command.session_id,
                "released",
                command.reset,
            )
        ]
    )


def retire_agent(context: Context, command: RetireAgent, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """AgentRetired; with `force` first AgentReleased, told as a fact of the user whose session holds it."""
    agent = context.agents.agents.get(command.agent_id)
    if agent is None or agent.tenant != command.tenant:
        return Decision([], _not_found(command.agent_id))
    events: list[Event] = []
    version = agent.version + 1
    name = (agent.agent_id, agent.agent_type)
    if agent.held_by is not None:
        if not command.force:
            return Decision(
                [], AgentBusy(f"agent {format_id(agent.agent_id)} is held by a session; use force, or wait")
            )
        head = (command.tenant, agent.user, version, now, None, None)
        events.append(AgentReleased(new_id(), *head, *name, agent.held_by, "retired", NOT_REPORTED))
        version += 1
    head_own = (command.tenant, "", version, now, prepared.command_id, prepared.digest)
    events.append(AgentRetired(own_event_id(prepared, new_id), *head_own, *name, command.reason))
    return Decision(events)


def _not_found(agent_id: bytes) -> AgentNotFound:
    return AgentNotFound(f"agent {format_id(agent_id)}: no such instance is registered for this tenant")
