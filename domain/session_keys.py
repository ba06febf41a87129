"""By which data keys a session may be sealed, and the fact that goes first where a key is new to the log."""

from __future__ import annotations

from collections.abc import Callable

from session_ledger.domain.commands import Prepared
from session_ledger.domain.events import Event, KeyRotated
from session_ledger.domain.session import Session


def may_seal(session: Session, prepared: Prepared) -> bool:
    """Whether what the command carries is sealed by the session's key, by the one directly before it, or by a new one.

    The one before, because commands that were sealed when the key was rotated wait beside its fact. A new one is a
    later generation that comes with its commitment; a session whose sealing is off gets none.
    """
    key_id = prepared.sealed[0].key_id
    if key_id == session.key_id:
        return True
    if key_id is None or session.key_id is None:
        return False
    return key_id == session.previous_key_id or (
        prepared.key_commitment is not None and prepared.key_generation > session.key_generation
    )


def rotation_first(session: Session, prepared: Prepared, now: int, new_id: Callable[[], bytes]) -> list[Event]:
    """[KeyRotated] where the command is sealed by a key that the log does not know yet, else [].

    It is the ledger's own fact, no part of the command: it stands before the command's events, in the same append.
    Call it only where `may_seal` holds.
    """
    sealed = prepared.sealed
    if not sealed or sealed[0].key_id == session.key_id or sealed[0].key_id == session.previous_key_id:
        return []
    return [rotated(session, prepared, new_id(), now, None, None, prepared.key_reason)]


def rotated(
    session: Session,
    prepared: Prepared,
    event_id: bytes,
    now: int,
    command_id: bytes | None,
    digest: bytes | None,
    reason: str,
) -> KeyRotated:
    """The fact that the command's key is the session's from now on."""
    command, key_id, commitment = prepared.command, prepared.sealed[0].key_id, prepared.key_commitment
    assert key_id is not None, "`may_seal` has looked"
    assert commitment is not None, "likewise"
    return KeyRotated(
        event_id,
        command.tenant,
        getattr(command, "user", ""),
        session.version + 1,
        now,
        command_id,
        digest,
        session.session_id,
        key_id,
        commitment,
        prepared.key_generation,
        reason,
    )
