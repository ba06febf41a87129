"""The result of a recorded command, made from its events alone: a repeat answers what the first one did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from session_ledger.domain.commands import (
    AcquireAgent,
    AddMessage,
    Command,
    ConsumeQuota,
    CreateSession,
    EndSession,
    ExpireSessions,
    ImportSession,
    IssueAccessToken,
    RegisterAgent,
    ReleaseAgent,
    ReleaseQuota,
    ReportError,
    RetireAgent,
    RotateAccessToken,
    RotateSessionKey,
    UpdateSession,
)
from session_ledger.domain.errors import LogCorrupt
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AgentAcquired,
    AgentEvent,
    AgentReleased,
    Event,
    KeyRotated,
    MessageAdded,
    QuotaConsumed,
    QuotaReleased,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
)
from session_ledger.domain.ids import format_id, session_text
from session_ledger.domain.results import (
    AccessTokenSet,
    AgentChanged,
    AgentLeased,
    MessageRecorded,
    QuotaGivenBack,
    QuotaStatus,
    Recorded,
    Result,
    SessionChanged,
    SessionImported,
    SessionKeyRotated,
    SessionsExpired,
    SessionStarted,
)

E = TypeVar("E", bound=Event)


def result_of(command: Command, events: Sequence[Event], partition: int, last_position: int) -> Result:
    """What a command answers that led to `events`, the last of which stands at `last_position`.

    Events before the command's own (expiry of what was due) do not matter: the answer to a repeat, which is made from
    the command's own events as they stand in the log, is the same. Raises LogCorrupt where they are not the command's.
    """
    make = _RESULTS.get(type(command), _recorded)
    own = events[-1]
    command_id = own.command_id or command.command_id
    return make(events, partition, last_position, "" if command_id is None else format_id(command_id))


def _only(events: Sequence[Event], event_type: type[E]) -> E:
    for event in events:
        if isinstance(event, event_type):
            return event
    raise LogCorrupt(f"the events of a repeated command hold no {event_type.__name__}")


def _recorded(events: Sequence[Event], partition: int, position: int, command_id: str) -> Recorded:
    return Recorded(partition=partition, position=position, command_id=command_id)


def _message(events: Sequence[Event], partition: int, position: int, command_id: str) -> MessageRecorded:
    event = _only(events, MessageAdded)
    return MessageRecorded(
        partition=partition,
        position=position,
        command_id=command_id,
        session_id=session_text(event.session_id),
        message_number=event.message_number,
    )


def _started(events: Sequence[Event], partition: int, position: int, command_id: str) -> SessionStarted:
    event = _only(events, SessionCreated)
    session_id = format_id(event.session_id)
    return SessionStarted(
        partition=partition,
        position=position,
        command_id=command_id,
        tenant=event.tenant,
        user=event.user,
        session_id=session_id,
        thread_id=session_id,
        evicted=tuple(format_id(e.session_id) for e in events if isinstance(e, SessionEvicted)),
    )


def _changed(events: Sequence[Event], partition: int, position: int, command_id: str) -> SessionChanged:
    event = next((e for e in events if isinstance(e, SessionEvent) and e.command_id is not None), None)
    if event is None:
        raise LogCorrupt("the events of a repeated command hold none of its session")
    return SessionChanged(
        partition=partition,
        position=position,
        command_id=command_id,
        session_id=format_id(event.session_id),
        version=event.version,
        released_agents=tuple(format_id(e.agent_id) for e in events if isinstance(e, AgentReleased)),
    )


def _rotated(events: Sequence[Event], partition: int, position: int, command_id: str) -> SessionKeyRotated:
    event = _only(events, KeyRotated)
    return SessionKeyRotated(
        partition=partition,
        position=position,
        command_id=command_id,
        session_id=format_id(event.session_id),
        version=event.version,
        key_id=format_id(event.key_id),
        generation=event.generation,
    )


def _token(events: Sequence[Event], partition: int, position: int, command_id: str) -> AccessTokenSet:
    event = next((e for e in events if isinstance(e, AccessTokenIssued | AccessTokenRotated)), None)
    if event is None:
        raise LogCorrupt("the events of a repeated command hold none of an access token")
    return AccessTokenSet(
        partition=partition,
        position=position,
        command_id=command_id,
        session_id=format_id(event.session_id),
        version=event.version,
        expires_at=event.expires_at,
    )


def _imported(events: Sequence[Event], partition: int, position: int, command_id: str) -> SessionImported:
    event = events[-1]
    if not isinstance(event, SessionEvent):
        raise LogCorrupt(f"the events of an import end with {type(event).__name__}")
    return SessionImported(
        partition=partition,
        position=position,
        command_id=command_id,
        session_id=format_id(event.session_id),
        added=sum(isinstance(e, MessageAdded) for e in events),
        complete=isinstance(event, SessionEnded),
        created=any(isinstance(e, SessionCreated) for e in events),
    )


def _consumed(events: Sequence[Event], partition: int, position: int, command_id: str) -> QuotaStatus:
    event = _only(events, QuotaConsumed)
    return QuotaStatus(
        partition=partition,
        position=position,
        command_id=command_id,
        resource=event.resource,
        used=event.used,
        limit=event.limit,
        period_ms=event.period_ms,
        source=event.limit_source,
        reservation_id=format_id(event.event_id) if event.reserved else None,
    )


def _given_back(events: Sequence[Event], partition: int, position: int, command_id: str) -> QuotaGivenBack:
    event = _only(events, QuotaReleased)
    return QuotaGivenBack(
        partition=partition,
        position=position,
        command_id=command_id,
        resource=event.resource,
        amount=event.amount,
    )


def _leased(events: Sequence[Event], partition: int, position: int, command_id: str) -> AgentLeased:
    event = _only(events, AgentAcquired)
    return AgentLeased(
        partition=partition,
        position=position,
        command_id=command_id,
        agent_id=format_id(event.agent_id),
        agent_type=event.agent_type,
        session_id=format_id(event.session_id),
    )


def _agent(events: Sequence[Event], partition: int, position: int, command_id: str) -> AgentChanged:
    event = _only(events, AgentEvent)
    return AgentChanged(
        partition=partition,
        position=position,
        command_id=command_id,
        agent_id=format_id(event.agent_id),
        agent_type=event.agent_type,
    )


def _expired(events: Sequence[Event], partition: int, position: int, command_id: str) -> SessionsExpired:
    return SessionsExpired(
        partition=partition,
        position=position,
        command_id=command_id,
        session_ids=tuple(format_id(e.session_id) for e in events if isinstance(e, SessionExpired)),
    )


_RESULTS: dict[type[Command], Callable[[Sequence[Event], int, int, str], Result]] = {
    CreateSession: _started,
    AddMessage: _message,
    UpdateSession: _changed,
    EndSession: _changed,
    ReportError: _changed,
    RotateSessionKey: _rotated,
    IssueAccessToken: _token,
    RotateAccessToken: _token,
    ImportSession: _imported,
    ConsumeQuota: _consumed,
    ReleaseQuota: _given_back,
    AcquireAgent: _leased,
    RegisterAgent: _agent,
    ReleaseAgent: _agent,
    RetireAgent: _agent,
    ExpireSessions: _expired,
}
"""Commands that are not here answer `Recorded`."""
