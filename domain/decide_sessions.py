"""Decisions about sessions: create (with eviction or refusal), update, message, end, report an error, expire."""

from __future__ import annotations

from session_ledger.domain.commands import (
    AddMessage,
    CreateSession,
    EndSession,
    ExpireSessions,
    Prepared,
    ReportError,
    UpdateSession,
)
from session_ledger.domain.decision import (
    EXPIRIES_MAX,
    Context,
    Decision,
    NewId,
    expire_due,
    key_unavailable,
    live_session,
    own_seal,
    release_held,
)
from session_ledger.domain.errors import InvalidInput, SessionExists, SessionLimitReached
from session_ledger.domain.events import (
    ErrorReported,
    Event,
    MessageAdded,
    SessionCreated,
    SessionEnded,
    SessionEvicted,
    SessionUpdated,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import SessionsExpired, SessionStarted
from session_ledger.domain.session import REFUSE, SENSITIVE, Session
from session_ledger.domain.session_keys import rotation_first


def add_message(context: Context, command: AddMessage, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """MessageAdded, numbered within the session."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if not prepared.sealed:
        return Decision([], key_unavailable(command.session_id))
    sealed = prepared.sealed[0]
    metadata = sealed.metadata
    field = sealed.fields.get
    first = rotation_first(session, prepared, now, new_id)
    return Decision(
        [
            *first,
            MessageAdded(
                sealed.event_id,
                command.tenant,
                command.user,
                session.version + 1 + len(first),
                now,
                prepared.command_id,
                prepared.digest,
                command.session_id,
                command.occurred_at,
                session.message_count + 1,
                command.role,
                command.model,
                command.tokens_in,
                command.tokens_out,
                command.latency_ms,
                command.audio_duration_ms,
                sealed.key_id,
                metadata if isinstance(metadata, dict) else dict(metadata),
                field("sealed_metadata"),
                sealed.fields["sealed_content"],
                field("sealed_parts"),
                field("sealed_audio_url"),
                command.agent_id,
                command.tokens_cached,
                command.tokens_reasoning,
                command.topic,
                command.shared_source,
            ),
        ]
    )


def create_session(context: Context, command: CreateSession, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """SessionCreated, after the expiry of what is due and the eviction of what must make room.

    The log never holds more sessions that neither ended nor expired than the limit. So where a limit was lowered, one
    decision records as many expiries and evictions as that takes; else at most `EXPIRIES_MAX` expiries.
    """
    account, settings = context.account, context.settings
    limit, policy = settings.max_sessions(account), settings.limit_policy(account)
    events: list[Event] = []
    expire_due(context, now, new_id, events, max(EXPIRIES_MAX, len(account.sessions) + 1 - limit))
    live = [session for session in account.sessions.values() if not session.importing and not session.is_due(now)]
    live.sort(key=lambda session: (session.last_active_at, session.created_at, session.session_id))
    if command.reuse and live:
        return Decision(events, result=_reused(command, prepared, live[-1]))
    session_id = prepared.session_id
    if session_id is None or not prepared.sealed:
        return Decision(events, key_unavailable(session_id or prepared.command_id))
    if session_id in account.sessions:
        return Decision(events, SessionExists(f"session {format_id(session_id)} exists already"))
    ttl_ms_max = settings.ttl_ms(account, command.kind)
    ttl_ms = ttl_ms_max if command.ttl_ms is None else command.ttl_ms
    if command.kind == SENSITIVE and ttl_ms > ttl_ms_max:
        rule = f"a sensitive session lives {ttl_ms_max} ms at most"
        return Decision(events, InvalidInput("ttl_ms", f"{ttl_ms} ms", rule))
    idle_timeout_ms = command.idle_timeout_ms
    if idle_timeout_ms is None:
        idle_timeout_ms = settings.idle_timeout_ms(account, command.kind)
    excess = len(live) + 1 - limit
    if excess > 0 and policy == REFUSE:
        seen = f"the user has {len(live)} live sessions, the limit is {limit}"
        return Decision(events, SessionLimitReached(f"{seen}: end one, or raise the limit"))
    for session in live[: max(excess, 0)]:
        _evict(context, session, limit, prepared, session_id, now, new_id, events)
    sealed = prepared.sealed[0]
    field = sealed.fields.get
    events.append(
        SessionCreated(
            sealed.event_id,
            command.tenant,
            command.user,
            1,
            now,
            prepared.command_id,
            prepared.digest,
            session_id,
            command.occurred_at,
            command.kind,
            command.channel,
            command.domain,
            idle_timeout_ms,
            now + ttl_ms * 1000,
            limit,
            policy,
            False,
            None,
            sealed.key_id,
            prepared.key_commitment,
            dict(sealed.metadata),
            field("sealed_metadata"),
            field("sealed_title"),
            field("sealed_context"),
            field("sealed_ip_address"),
        )
    )
    return Decision(events)


def _evict(
    context: Context,
    session: Session,
    limit: int,
    prepared: Prepared,
    replaced_by: bytes,
    now: int,
    new_id: NewId,
    events: list[Event],
) -> None:
    account = context.account
    events.append(
        SessionEvicted(
            new_id(),
            account.tenant,
            account.user,
            session.version + 1,
            now,
            prepared.command_id,
            prepared.digest,
            session.session_id,
            limit,
            replaced_by,
        )
    )
    command_id, digest = prepared.command_id, prepared.digest
    release_held(context, session.session_id, "session_evicted", now, new_id, command_id, digest, events)


def _reused(command: CreateSession, prepared: Prepared, session: Session) -> SessionStarted:
    session_id = format_id(session.session_id)
    return SessionStarted(
        command_id=format_id(prepared.command_id),
        tenant=command.tenant,
        user=command.user,
        session_id=session_id,
        thread_id=session_id,
        created=False,
    )


def update_session(context: Context, command: UpdateSession, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """SessionUpdated with what the command gives; the rest is None, unchanged."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if not prepared.sealed:
        return Decision([], key_unavailable(command.session_id))
    sealed = prepared.sealed[0]
    field = sealed.fields.get
    first = rotation_first(session, prepared, now, new_id)
    return Decision(
        [
            *first,
            SessionUpdated(
                sealed.event_id,
                command.tenant,
                command.user,
                session.version + 1 + len(first),
                now,
                prepared.command_id,
                prepared.digest,
                command.session_id,
                command.occurred_at,
                sealed.key_id,
                None if command.metadata is None else dict(sealed.metadata),
                field("sealed_metadata"),
                field("sealed_title"),
                field("sealed_context"),
            ),
        ]
    )


def end_session(context: Context, command: EndSession, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """SessionEnded, and the release of what the session holds."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if command.note is not None and not prepared.sealed:
        return Decision([], key_unavailable(command.session_id))
    sealed = own_seal(prepared, new_id)
    command_id, digest = prepared.command_id, prepared.digest
    first = rotation_first(session, prepared, now, new_id)
    events: list[Event] = [
        *first,
        SessionEnded(
            sealed.event_id,
            command.tenant,
            command.user,
            session.version + 1 + len(first),
            now,
            command_id,
            digest,
            command.session_id,
            command.occurred_at,
            command.reason,
            command.ended_by,
            sealed.key_id,
            sealed.fields.get("sealed_note"),
        ),
    ]
    release_held(context, command.session_id, "session_ended", now, new_id, command_id, digest, events)
    return Decision(events)


def report_error(context: Context, command: ReportError, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """ErrorReported in the session's stream; it is no activity, so it does not keep the session alive."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if command.message is not None and not prepared.sealed:
        return Decision([], key_unavailable(command.session_id))
    sealed = own_seal(prepared, new_id)
    first = rotation_first(session, prepared, now, new_id)
    return Decision(
        [
            *first,
            ErrorReported(
                sealed.event_id,
                command.tenant,
                command.user,
                session.version + 1 + len(first),
                now,
                prepared.command_id,
                prepared.digest,
                command.session_id,
                command.occurred_at,
                command.component,
                command.error_type,
                command.severity,
                command.agent_id,
                sealed.key_id,
                sealed.fields.get("sealed_message"),
            ),
        ]
    )


def expire_sessions(context: Context, command: ExpireSessions, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """SessionExpired for the sessions of the user that are due, at most `EXPIRIES_MAX`: the sweep comes again."""
    events: list[Event] = []
    expire_due(context, now, new_id, events)
    if not events:
        return Decision([], result=SessionsExpired(command_id=format_id(prepared.command_id), session_ids=()))
    return Decision(events)
