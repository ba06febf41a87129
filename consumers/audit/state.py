"""A session as it stood at a point, folded from its facts alone; what is sealed stays so, and is shown by its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from session_ledger.consumers.audit.index import Fact
from session_ledger.consumers.records import as_datetime, as_datetime_or_none
from session_ledger.domain.errors import SessionNotFound
from session_ledger.domain.events import (
    AccessTokenIssued,
    AccessTokenRotated,
    AgentAcquired,
    AgentReleased,
    ErrorReported,
    Event,
    KeyRotated,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionEvent,
    SessionEvicted,
    SessionExpired,
    SessionUpdated,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.session import IMPORTED


@dataclass(frozen=True, slots=True)
class SealedValue:
    """A sealed field: how large, by which key, of which event. Ids are UUID text."""

    size: int
    """Bytes of the ciphertext."""
    key_id: str | None
    """None: sealing is off."""
    event_id: str
    position: int


@dataclass(frozen=True, slots=True)
class MessageState:
    """A message, without what it says."""

    number: int
    role: str
    model: str | None
    agent_id: str | None
    topic: str | None
    tokens_in: int | None
    tokens_out: int | None
    latency_ms: int | None
    recorded_at: datetime
    occurred_at: datetime | None
    position: int
    content: SealedValue


@dataclass(frozen=True, slots=True)
class ErrorState:
    """An error that was reported."""

    component: str
    error_type: str
    severity: str
    agent_id: str | None
    recorded_at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session at (partition, position). Ids are UUID text, times aware datetimes (UTC)."""

    session_id: str
    tenant: str
    user: str
    status: str
    """live, ended, expired, evicted or imported. Live: no end was recorded yet (`due_at` tells when it times out)."""
    kind: str
    channel: str
    domain: str | None
    created_at: datetime
    last_active_at: datetime
    due_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    ended_by: str | None
    replaced_by: str | None
    metadata: dict[str, str]
    """What is in the clear."""
    sealed: dict[str, SealedValue]
    """title, context, metadata, ip_address, note: as far as there is one."""
    messages: tuple[MessageState, ...]
    tokens_in: int
    tokens_out: int
    errors: tuple[ErrorState, ...]
    agents: tuple[str, ...]
    """The instances that it holds, in the order it got them."""
    version: int
    partition: int
    position: int
    """Of the last fact that changed it."""
    recorded_at: datetime
    """When that was."""
    _idle_timeout_us: int = field(default=0, repr=False)


def up_to(facts: Sequence[Fact], point: datetime | int | None) -> list[Fact]:
    """The facts recorded at or before a time, or up to a position; None: all of them."""
    if point is None:
        return list(facts)
    if isinstance(point, datetime):
        return [fact for fact in facts if as_datetime(fact.event.recorded_at) <= point]
    return [fact for fact in facts if fact.position <= point]


def state_of(facts: Sequence[Fact]) -> SessionState:
    """Fold a session's facts. Raises SessionNotFound where its creation is not among them."""
    state: SessionState | None = None
    for fact in facts:
        event = fact.event
        if isinstance(event, SessionCreated):
            state = _created(event, fact)
        elif state is not None:
            state = _next(state, event, fact)
    if state is None:
        raise SessionNotFound("the session was not there yet at that point (or never was)")
    return state


def _created(event: SessionCreated, fact: Fact) -> SessionState:
    idle_us = event.idle_timeout_ms * 1000
    return SessionState(
        session_id=format_id(event.session_id),
        tenant=event.tenant,
        user=event.user,
        status="imported" if event.imported else "live",
        kind=event.kind,
        channel=event.channel,
        domain=event.domain,
        created_at=as_datetime(event.recorded_at),
        last_active_at=as_datetime(event.recorded_at),
        due_at=as_datetime(min(event.recorded_at + idle_us, event.expires_at)),
        expires_at=as_datetime(event.expires_at),
        ended_at=None,
        end_reason=None,
        ended_by=None,
        replaced_by=None,
        metadata=dict(event.metadata),
        sealed=_sealed(event, fact, "title", "context", "metadata", "ip_address"),
        messages=(),
        tokens_in=0,
        tokens_out=0,
        errors=(),
        agents=(),
        version=event.version,
        partition=fact.partition,
        position=fact.position,
        recorded_at=as_datetime(event.recorded_at),
        _idle_timeout_us=idle_us,
    )


def _next(state: SessionState, event: Event, fact: Fact) -> SessionState:
    fold = _FOLDS.get(type(event))
    if fold is None:  # about the session, without changing it: a reveal, a finding, a refusal, consumption
        return state
    version = event.version if isinstance(event, SessionEvent) else state.version
    moment = as_datetime(event.recorded_at)
    return replace(fold(state, event, fact), version=version, position=fact.position, recorded_at=moment)


def _acquired(state: SessionState, event: AgentAcquired, fact: Fact) -> SessionState:
    return replace(state, agents=(*state.agents, format_id(event.agent_id)))


def _released(state: SessionState, event: AgentReleased, fact: Fact) -> SessionState:
    gone = format_id(event.agent_id)
    return replace(state, agents=tuple(agent for agent in state.agents if agent != gone))


def _said(state: SessionState, event: MessageAdded, fact: Fact) -> SessionState:
    changed = replace(
        state,
        messages=(*state.messages, _message(event, fact)),
        tokens_in=state.tokens_in + (event.tokens_in or 0),
        tokens_out=state.tokens_out + (event.tokens_out or 0),
    )
    return _active(changed, event)


def _updated(state: SessionState, event: SessionUpdated, fact: Fact) -> SessionState:
    kept = {name: value for name, value in state.sealed.items() if name != "metadata" or event.metadata is None}
    sealed = kept | _sealed(event, fact, "title", "context", "metadata")
    metadata = state.metadata if event.metadata is None else dict(event.metadata)
    return _active(replace(state, metadata=metadata, sealed=sealed), event)


def _unchanged(state: SessionState, event: Event, fact: Fact) -> SessionState:
    return state  # each sealed value names its own key; a token is not of what the session holds


def _failed(state: SessionState, event: ErrorReported, fact: Fact) -> SessionState:
    agent = None if event.agent_id is None else format_id(event.agent_id)
    moment = as_datetime(event.recorded_at)
    error = ErrorState(event.component, event.error_type, event.severity, agent, moment, fact.position)
    return replace(state, errors=(*state.errors, error))


def _ended(state: SessionState, event: SessionEnded, fact: Fact) -> SessionState:
    status = "imported" if event.reason == IMPORTED else "ended"
    sealed = state.sealed | _sealed(event, fact, "note")
    return _over(replace(state, sealed=sealed), event, status, event.reason, event.ended_by)


def _expired(state: SessionState, event: SessionExpired, fact: Fact) -> SessionState:
    return _over(state, event, "expired", event.reason, "system")


def _evicted(state: SessionState, event: SessionEvicted, fact: Fact) -> SessionState:
    changed = replace(state, replaced_by=format_id(event.replaced_by))
    return _over(changed, event, "evicted", "evicted", "system")


def _over(state: SessionState, event: Event, status: str, reason: str, by: str) -> SessionState:
    return replace(state, status=status, ended_at=as_datetime(event.recorded_at), end_reason=reason, ended_by=by)


_FOLDS: dict[type[Event], Callable[[SessionState, Any, Fact], SessionState]] = {
    AgentAcquired: _acquired,
    AgentReleased: _released,
    MessageAdded: _said,
    SessionUpdated: _updated,
    ErrorReported: _failed,
    SessionEnded: _ended,
    SessionExpired: _expired,
    SessionEvicted: _evicted,
    KeyRotated: _unchanged,
    AccessTokenIssued: _unchanged,
    AccessTokenRotated: _unchanged,
}


def _active(state: SessionState, event: Event) -> SessionState:
    due = as_datetime(event.recorded_at + state._idle_timeout_us)
    return replace(state, last_active_at=as_datetime(event.recorded_at), due_at=min(due, state.expires_at))


def _message(event: MessageAdded, fact: Fact) -> MessageState:
    return MessageState(
        number=event.message_number,
        role=event.role,
        model=event.model,
        agent_id=None if event.agent_id is None else format_id(event.agent_id),
        topic=event.topic,
        tokens_in=event.tokens_in,
        tokens_out=event.tokens_out,
        latency_ms=event.latency_ms,
        recorded_at=as_datetime(event.recorded_at),
        occurred_at=as_datetime_or_none(event.occurred_at),
        position=fact.position,
        content=_value(event, fact, event.sealed_content),
    )


def _sealed(event: SessionCreated | SessionUpdated | SessionEnded, fact: Fact, *names: str) -> dict[str, SealedValue]:
    found = {name: getattr(event, f"sealed_{name}") for name in names}
    return {name: _value(event, fact, sealed) for name, sealed in found.items() if sealed is not None}


def _value(
    event: SessionCreated | SessionUpdated | SessionEnded | MessageAdded, fact: Fact, sealed: bytes
) -> SealedValue:
    key_id = None if event.key_id is None else format_id(event.key_id)
    return SealedValue(len(sealed), key_id, format_id(event.event_id), fact.position)
