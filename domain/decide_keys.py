"""The decision to seal a session by a new data key."""

from __future__ import annotations

from session_ledger.domain.commands import Prepared, RotateSessionKey
from session_ledger.domain.decision import Context, Decision, NewId, live_session
from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.ids import format_id
from session_ledger.domain.session_keys import rotated


def rotate_session_key(
    context: Context, command: RotateSessionKey, prepared: Prepared, now: int, new_id: NewId
) -> Decision:
    """KeyRotated. The new key is durable before this is appended; whatever is sealed next is sealed by it."""
    session = live_session(context, prepared, command, now, new_id)
    if isinstance(session, Decision):
        return session
    if session.key_id is None:
        seen = f"session {format_id(command.session_id)}, whose sealing is off"
        return Decision([], InvalidInput("session_id", seen, "must be one that is sealed: it has no key to rotate"))
    event_id, command_id, digest = prepared.sealed[0].event_id, prepared.command_id, prepared.digest
    return Decision([rotated(session, prepared, event_id, now, command_id, digest, command.reason)])
