"""The decision about imported history: it consumes no quota, evicts nothing, and is ended by its last part."""

from __future__ import annotations

from session_ledger.domain.commands import ImportSession, Prepared
from session_ledger.domain.decision import Context, Decision, NewId, expire, key_unavailable, sealed_by_another
from session_ledger.domain.errors import (
    HistoryErased,
    InvalidInput,
    SessionExists,
    SessionLedgerError,
    SessionNotActive,
    TooManyImports,
)
from session_ledger.domain.events import Event, MessageAdded, SessionCreated, SessionEnded
from session_ledger.domain.ids import format_id
from session_ledger.domain.results import SessionImported
from session_ledger.domain.session import IMPORTED, Session
from session_ledger.domain.session_keys import may_seal, rotation_first

OPEN_IMPORTS_MAX = 16  # a user's histories whose import is not final yet


def import_session(context: Context, command: ImportSession, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """SessionCreated (first part), a MessageAdded for each message that is not there yet, SessionEnded (final part).

    The session's id makes it idempotent, so its events carry no command id. A part that overlaps what is recorded adds
    the rest; one that leaves a gap is refused. An import that is not finished within the lifetime of a session
    expires, and its id is used up.
    """
    session_id = command.session_id
    session = context.account.sessions.get(session_id)
    if session is None:
        begins = context.ended == IMPORTED or (context.ended is not None and command.first_message == 1)
        if begins and _is_erased(context, prepared, session_id):
            message = f"session {format_id(session_id)} was recorded before, and its content was erased since"
            return Decision([], HistoryErased(f"{message}: where it may come back, import it under another id"))
        if context.ended == IMPORTED:
            return Decision([], result=_nothing_added(prepared, session_id, complete=True))
        if context.ended is not None:
            return Decision([], _over(command, context.ended))
        if context.taken or session_id in context.agents.agents:
            return Decision([], SessionExists(f"session {format_id(session_id)}: the id is in use; use another"))
    elif session.importing and session.is_due(now):
        expiry: list[Event] = []
        expire(context, session, now, new_id, expiry)
        return Decision(expiry, _over(command, "expired"))
    recorded = 0 if session is None else session.message_count
    if session is not None and _is_another(session, command, prepared):
        message = f"session {format_id(session_id)} is recorded with another history; import it under another id"
        return Decision([], SessionExists(message))
    if command.first_message > recorded + 1:
        seen = f"{command.first_message}, with {recorded} messages recorded"
        return Decision(
            [], InvalidInput("first_message", seen, f"must be {recorded + 1} or less: no message is left out")
        )
    skipped = recorded + 1 - command.first_message
    if session is not None and not command.final and skipped >= len(command.messages):
        return Decision([], result=_nothing_added(prepared, session_id, complete=False))
    sealed = prepared.sealed
    if len(sealed) != 1 + len(command.messages) + command.final:
        return Decision([], key_unavailable(session_id))
    if session is not None and not may_seal(session, prepared):
        return Decision([], sealed_by_another(session, prepared))
    events: list[Event] = []
    if session is None:
        if not command.final and not _has_room(context, now, new_id, events):
            message = f"{OPEN_IMPORTS_MAX} imports of the user are not finished: finish one, or wait until one expires"
            return Decision(events, TooManyImports(message))
        events.append(_created(context, command, prepared, now))
        version = 1
    else:
        events += rotation_first(session, prepared, now, new_id)
        version = session.version + len(events)
    _add_messages(command, prepared, now, skipped, version, events)
    if command.final:
        ended, head = sealed[-1], (command.tenant, command.user, version + _count(command, skipped) + 1)
        reason = (IMPORTED, "system")
        event_head = (ended.event_id, *head, now, None, None, session_id, command.ended_at)
        events.append(SessionEnded(*event_head, *reason, ended.key_id, ended.fields.get("sealed_note")))
    return Decision(events)


def _is_erased(context: Context, prepared: Prepared, session_id: bytes) -> bool:
    """The history was erased: by itself, or with its user, after which the vault holds no key of it."""
    account = context.account
    return session_id in account.erased or (account.erased_at is not None and prepared.key_is_new)


def _over(command: ImportSession, ended: str) -> SessionLedgerError:
    """The user's session of that id is over, and no import ended it."""
    session_id = format_id(command.session_id)
    if command.first_message > 1:
        return SessionNotActive(f"session {session_id} is over ({ended}): import the whole history under another id")
    return SessionExists(f"session {session_id} is over ({ended}) and was not imported: use another id")


def _has_room(context: Context, now: int, new_id: NewId, events: list[Event]) -> bool:
    """Whether the user may begin another import; those whose time is over make room."""
    unfinished = [session for session in context.account.sessions.values() if session.importing]
    if len(unfinished) < OPEN_IMPORTS_MAX:
        return True
    due = [session for session in unfinished if session.is_due(now)]
    for session in due:
        expire(context, session, now, new_id, events)
    return len(unfinished) - len(due) < OPEN_IMPORTS_MAX


def _is_another(session: Session, command: ImportSession, prepared: Prepared) -> bool:
    """Whether the id is a live session's, or the first part differs from the one that began this import."""
    return not session.importing or (command.first_message == 1 and session.import_digest != prepared.digest)


def _count(command: ImportSession, skipped: int) -> int:
    return max(len(command.messages) - skipped, 0)


def _nothing_added(prepared: Prepared, session_id: bytes, *, complete: bool) -> SessionImported:
    return SessionImported(
        command_id=format_id(prepared.command_id), session_id=format_id(session_id), added=0, complete=complete
    )


def _created(context: Context, command: ImportSession, prepared: Prepared, now: int) -> SessionCreated:
    account, settings, sealed = context.account, context.settings, prepared.sealed[0]
    field = sealed.fields.get
    return SessionCreated(
        sealed.event_id,
        command.tenant,
        command.user,
        1,
        now,
        None,
        None,
        command.session_id,
        command.occurred_at,
        command.kind,
        command.channel,
        command.domain,
        settings.idle_timeout_ms(account, command.kind),
        now + settings.ttl_ms(account, command.kind) * 1000,
        None,
        settings.limit_policy(account),
        True,
        prepared.digest,
        sealed.key_id,
        prepared.key_commitment,
        dict(sealed.metadata),
        field("sealed_metadata"),
        field("sealed_title"),
        field("sealed_context"),
        field("sealed_ip_address"),
    )


def _add_messages(
    command: ImportSession, prepared: Prepared, now: int, skipped: int, version: int, events: list[Event]
) -> None:
    tenant, user, session_id = command.tenant, command.user, command.session_id
    number = command.first_message + skipped
    for message, sealed in zip(command.messages[skipped:], prepared.sealed[1 + skipped :], strict=False):
        version += 1
        fields = sealed.fields
        metadata = sealed.metadata
        events.append(
            MessageAdded(
                sealed.event_id,
                tenant,
                user,
                version,
                now,
                None,
                None,
                session_id,
                message.occurred_at,
                number,
                message.role,
                message.model,
                message.tokens_in,
                message.tokens_out,
                message.latency_ms,
                message.audio_duration_ms,
                sealed.key_id,
                metadata if isinstance(metadata, dict) else dict(metadata),
                fields.get("sealed_metadata"),
                fields["sealed_content"],
                fields.get("sealed_parts"),
                fields.get("sealed_audio_url"),
                message.agent_id,
                message.tokens_cached,
                message.tokens_reasoning,
                message.topic,
                message.shared_source,
            )
        )
        number += 1
