"""What an erasure does to the rows of sessions: every sealed text leaves, structure and counts stay.

A message keeps its row, with empty bytes where its content was. The ciphertext in the log is what it was: its key is
destroyed, which is not the views' to do.
"""

from __future__ import annotations

import sqlite3

from session_ledger.domain.events import ContentErased

_OF_USER = "session_id IN (SELECT session_id FROM sessions WHERE tenant = :tenant AND user = :user AND {before})"
_BEFORE = "created_position < :position"
_OF_SESSION = "session_id = :session_id AND EXISTS (SELECT 1 FROM sessions AS s WHERE s.session_id = :session_id"
_OF_SESSION += " AND s.tenant = :tenant AND s.user = :user)"  # a user can name another's session, and changes nothing


def erase(db: sqlite3.Connection, position: int, event: ContentErased) -> None:
    """Take the sealed texts out of the rows of a session, or of all of a user that came before `position`."""
    told = {
        "tenant": event.tenant,
        "user": event.user,
        "session_id": event.session_id,
        "position": position,
        "at": event.recorded_at,
    }
    of_user = event.session_id is None
    where = _OF_USER.format(before=_BEFORE) if of_user else _OF_SESSION
    sessions = f"tenant = :tenant AND user = :user AND {_BEFORE if of_user else 'session_id = :session_id'}"
    for statement in (
        f"UPDATE sessions SET erased_at = :at WHERE {sessions} AND erased_at IS NULL",
        f"DELETE FROM session_content WHERE {where}",
        "UPDATE messages SET sealed_content = x'', sealed_metadata = NULL, sealed_parts = NULL, sealed_audio_url = NULL"
        f" WHERE {where}",
        f"UPDATE session_errors SET sealed_message = NULL WHERE {where}",
    ):
        db.execute(statement, told)
    if of_user:
        db.execute(
            "UPDATE authentication_failures SET sealed_ip_address = NULL"
            " WHERE tenant = :tenant AND user = :user AND position < :position",
            told,
        )
