"""What a decision is made of and what it leads to, and the pieces that several decisions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from session_ledger.domain.account import Account
from session_ledger.domain.agents import NOT_REPORTED, AgentPool
from session_ledger.domain.commands import Prepared, Sealed, SessionCommand
from session_ledger.domain.errors import KeyUnavailable, SessionLedgerError, SessionNotActive, SessionNotFound
from session_ledger.domain.events import AgentReleased, Event, SessionExpired
from session_ledger.domain.ids import format_id, id_time_us
from session_ledger.domain.remembered import DIGEST_BYTES
from session_ledger.domain.results import Recorded, Result
from session_ledger.domain.session import IMPORTED, Session
from session_ledger.domain.session_keys import may_seal

if TYPE_CHECKING:
    from session_ledger.domain.control import TenantSettings

MILLISECOND_US = 1000  # what ids tell the time in
EXPIRIES_MAX = 256  # sessions whose expiry one decision records: some 200 kB

NewId = Callable[[], bytes]
"""Makes a fresh UUIDv7: the only randomness, passed in."""


@dataclass(slots=True)
class Context:
    """What a decision looks at."""

    account: Account
    """Of the command's user; for agent commands of (tenant, "")."""
    agents: AgentPool
    settings: TenantSettings
    partition: int
    ended: str | None = None
    """How the user's session that the command names ended: ended, expired, evicted or imported (by its import); of
    RegisterAgent: retired, where the tenant's instance is. None: it lives, never existed, or is somebody else's."""
    taken: bool = False
    """The id that an import or a registration names is a stream of somebody else's in this partition."""


@dataclass(slots=True)
class Decision:
    """What a command leads to: events to append, and an error, a result, a repeat, or (none of them) `result_of`.

    The command's own events come last and next to each other; before them stands what was due anyway (expiry). So the
    last event's position is the position of the answer. Events may go with an error: both hold.
    """

    events: list[Event]
    error: SessionLedgerError | None = None
    result: Result | None = None
    """Of a command whose answer its events do not tell, and that is not remembered; the shard fills in the place."""
    repeat: tuple[int, int] | None = None
    """(first position, number) of the events that the same command recorded before: read them, call `result_of`."""


Head = tuple[bytes, str, str, int, int, bytes | None, bytes | None]


def account_head(context: Context, prepared: Prepared, now: int, new_id: NewId) -> Head:
    """What the command's own event in the stream of the account begins with."""
    account = context.account
    event_id = own_event_id(prepared, new_id)
    return event_id, account.tenant, account.user, account.version + 1, now, prepared.command_id, prepared.digest


def nothing_new(prepared: Prepared) -> Decision:
    """What the command asks for is recorded already."""
    return Decision([], result=Recorded(command_id=format_id(prepared.command_id)))


def own_seal(prepared: Prepared, new_id: NewId) -> Sealed:
    """The seal of the command's own event; an empty one with a fresh event id where nothing was sealed."""
    return prepared.sealed[0] if prepared.sealed else Sealed(new_id(), None, {}, {})


def own_event_id(prepared: Prepared, new_id: NewId) -> bytes:
    """The id of the command's own event, where nothing of it is sealed."""
    return prepared.sealed[0].event_id if prepared.sealed else new_id()


def live_session(
    context: Context, prepared: Prepared, command: SessionCommand, now: int, new_id: NewId
) -> Session | Decision:
    """The live session that the command names; else the decision that says why not, with its expiry if that is due."""
    session_id = command.session_id
    session = context.account.sessions.get(session_id)
    if session is None:
        if context.ended is None:
            return Decision([], SessionNotFound(f"session {format_id(session_id)}: no such session of this user"))
        return Decision(
            [], SessionNotActive(f"session {format_id(session_id)} is over ({context.ended}): start another")
        )
    if session.is_due(now):
        events: list[Event] = []
        expire(context, session, now, new_id, events)
        reason = session.due_reason
        return Decision(events, SessionNotActive(f"session {format_id(session_id)} expired ({reason}): start another"))
    if session.importing:
        return Decision(
            [], SessionNotActive(f"session {format_id(session_id)} is history whose import is not finished")
        )
    if len(prepared.digest) != DIGEST_BYTES:
        return Decision([], key_unavailable(session_id))
    if prepared.sealed and prepared.sealed[0].key_id != session.key_id and not may_seal(session, prepared):
        return Decision([], sealed_by_another(session, prepared))
    return session


def is_erased(context: Context, session_id: bytes) -> bool:
    """By itself, or with its user: then it is over, and its id tells when it began (not that of imported history)."""
    account = context.account
    if session_id in account.erased:
        return True
    if account.erased_at is None or session_id in account.sessions or context.ended in (None, IMPORTED):
        return False
    return id_time_us(session_id) // MILLISECOND_US < account.erased_at // MILLISECOND_US


def matters_of(context: Context, session_id: bytes | None) -> set[str]:
    """The matters of the legal holds on that session, or (None) on all of the user, and on the tenant."""
    holds = context.account.holds
    return {*holds.get(b"", ()), *(holds.get(session_id, ()) if session_id else ()), *context.settings.holds}


def key_unavailable(session_id: bytes) -> KeyUnavailable:
    """The command came without a seal by the session's own data key, because that is not to be had."""
    return KeyUnavailable(f"session {format_id(session_id)}: its data key is not to be had, so nothing can be sealed")


def sealed_by_another(session: Session, prepared: Prepared) -> KeyUnavailable:
    """The command came sealed by a key that the session has replaced, or that is not the session's."""
    key_id = prepared.sealed[0].key_id
    if key_id is None or session.key_id is None:
        return key_unavailable(session.session_id)
    error = KeyUnavailable(
        f"session {format_id(session.session_id)}: sealed by data key {format_id(key_id)}, and the session's is "
        f"{format_id(session.key_id)}, generation {session.key_generation}; repeat the command, it is then sealed again"
    )
    error.retriable = True
    return error


def expire(context: Context, session: Session, now: int, new_id: NewId, events: list[Event]) -> None:
    """Add the expiry of a session that is due, and the release of what it holds."""
    account = context.account
    events.append(
        SessionExpired(
            new_id(),
            account.tenant,
            account.user,
            session.version + 1,
            now,
            None,
            None,
            session.session_id,
            session.due_reason,
            session.due_at,
        )
    )
    release_held(context, session.session_id, "session_expired", now, new_id, None, None, events)


def expire_due(context: Context, now: int, new_id: NewId, events: list[Event], at_most: int = EXPIRIES_MAX) -> None:
    """Add the expiry of the account's sessions that are due, in the order in which their time ran out.

    What is more than `at_most` stays, over as it is, for the next command of the user or the next sweep.
    """
    due = [session for session in context.account.sessions.values() if session.is_due(now)]
    due.sort(key=lambda session: (session.due_at, session.session_id))
    for session in due[:at_most]:
        expire(context, session, now, new_id, events)


def release_held(
    context: Context,
    session_id: bytes,
    reason: str,
    now: int,
    new_id: NewId,
    command_id: bytes | None,
    digest: bytes | None,
    events: list[Event],
) -> None:
    """Add the release of every agent that the session holds."""
    if session_id not in context.agents.held:
        return
    account = context.account
    for agent in context.agents.held_by(session_id):
        events.append(
            AgentReleased(
                new_id(),
                account.tenant,
                account.user,
                agent.version + 1,
                now,
                command_id,
                digest,
                agent.agent_id,
                agent.agent_type,
                session_id,
                reason,
                NOT_REPORTED,
            )
        )
