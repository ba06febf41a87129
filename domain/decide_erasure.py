"""Decisions about erasure and legal holds of users and sessions; those of tenants are in `control`."""

from __future__ import annotations

from session_ledger.domain.commands import EraseSession, EraseUser, LiftLegalHold, Prepared, SetLegalHold
from session_ledger.domain.decision import (
    Context,
    Decision,
    NewId,
    account_head,
    is_erased,
    matters_of,
    nothing_new,
    release_held,
)
from session_ledger.domain.errors import ContentGone, HoldNotFound, InvalidInput, SessionNotFound, UnderLegalHold
from session_ledger.domain.events import (
    ContentErased,
    ErasureRefused,
    Event,
    LegalHoldLifted,
    LegalHoldSet,
    SessionEnded,
)
from session_ledger.domain.ids import format_id
from session_ledger.domain.session import Session

ERASED = "erased"  # the reason with which an erasure ends a session
ADMIN = "admin"  # who ends a session so; who asked for it stands in ContentErased
HOLDS_MAX = 1000  # of a user, some 100 kB


def erase_session(context: Context, command: EraseSession, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """ContentErased, after the session's end if it lives; nothing where it is erased already."""
    account, session_id = context.account, command.session_id
    session = account.sessions.get(session_id)
    if session is None and context.ended is None:
        return Decision([], SessionNotFound(f"session {format_id(session_id)}: no such session of this user"))
    if session_id in account.erased:
        return nothing_new(prepared)
    matters = matters_of(context, session_id)
    if matters:
        return _refused(context, command, session_id, matters, now, new_id)
    events = [] if session is None else _end(context, session, prepared, now, new_id)
    told = (session_id, command.requested_by, command.reason, None, None)
    return Decision([*events, ContentErased(*account_head(context, prepared, now, new_id), *told)])


def erase_user(context: Context, command: EraseUser, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """ContentErased, after the end of every session that lives."""
    account = context.account
    matters = {matter for held in account.holds.values() for matter in held} | context.settings.holds
    if matters:
        return _refused(context, command, None, matters, now, new_id)
    events: list[Event] = []
    for session in sorted(account.sessions.values(), key=lambda session: session.session_id):
        events += _end(context, session, prepared, now, new_id)
    told = (None, command.requested_by, command.reason, prepared.sealed[0].key_id, prepared.key_commitment)
    return Decision([*events, ContentErased(*account_head(context, prepared, now, new_id), *told)])


def _end(context: Context, session: Session, prepared: Prepared, now: int, new_id: NewId) -> list[Event]:
    account, command_id, digest = context.account, prepared.command_id, prepared.digest
    head = (new_id(), account.tenant, account.user, session.version + 1, now, command_id, digest, session.session_id)
    events: list[Event] = [SessionEnded(*head, None, ERASED, ADMIN, None, None)]
    release_held(context, session.session_id, "session_ended", now, new_id, command_id, digest, events)
    return events


def _refused(
    context: Context,
    command: EraseSession | EraseUser,
    session_id: bytes | None,
    matters: set[str] | frozenset[str],
    now: int,
    new_id: NewId,
) -> Decision:
    """ErasureRefused and the error. A repeat is decided again: the hold may be lifted by then."""
    account, matter = context.account, min(matters)
    head = (new_id(), account.tenant, account.user, account.version + 1, now, None, None)
    what = f"user {account.user!r}" if session_id is None else f"session {format_id(session_id)}"
    held = f"{what} of tenant {account.tenant!r} is under a legal hold ({', '.join(sorted(matters))})"
    error = UnderLegalHold(f"{held}: nothing was erased; lift the hold first, if you may")
    return Decision([ErasureRefused(*head, session_id, command.requested_by, command.reason, matter)], error)


def set_legal_hold(context: Context, command: SetLegalHold, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """LegalHoldSet; nothing where that matter holds the same already. What is gone can not be kept."""
    account = context.account
    if command.matter in account.holds.get(command.session_id or b"", ()):
        return nothing_new(prepared)
    if command.session_id is not None and is_erased(context, command.session_id):
        return Decision([], ContentGone(f"session {format_id(command.session_id)} was erased: no hold can keep it"))
    if sum(map(len, account.holds.values())) >= HOLDS_MAX:
        return Decision([], InvalidInput("matter", f"hold {HOLDS_MAX + 1} of a user", f"may be {HOLDS_MAX} at most"))
    told = (command.matter, command.session_id, command.requested_by, command.reason)
    return Decision([LegalHoldSet(*account_head(context, prepared, now, new_id), *told)])


def lift_legal_hold(context: Context, command: LiftLegalHold, prepared: Prepared, now: int, new_id: NewId) -> Decision:
    """LegalHoldLifted."""
    account = context.account
    if command.matter not in account.holds.get(command.session_id or b"", ()):
        scope = "the user" if command.session_id is None else f"session {format_id(command.session_id)}"
        return Decision([], HoldNotFound(f"matter {command.matter!r}: it holds nothing of {scope}"))
    told = (command.matter, command.session_id, command.requested_by, command.reason)
    return Decision([LegalHoldLifted(*account_head(context, prepared, now, new_id), *told)])
