"""From rows to records: sealed columns are opened on the way; what does not open is None, and the record says why."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from session_ledger.consumers.records import (
    AgentView,
    AuthenticationFailureView,
    ErrorView,
    LegalHoldView,
    MessageView,
    SessionView,
    as_datetime,
    as_datetime_or_none,
)
from session_ledger.domain.commands import Json
from session_ledger.domain.errors import ContentGone, ContentUnreadable, KeyUnavailable
from session_ledger.domain.events import (
    TOPIC_BY_EVENT,
    TOPIC_PREFIX,
    AuthenticationFailed,
    ErrorReported,
    MessageAdded,
)
from session_ledger.domain.ids import format_id
from session_ledger.security.opening import as_text, open_sealed
from session_ledger.security.port import Envelope

Row = sqlite3.Row
T = TypeVar("T")
_MESSAGE = TOPIC_BY_EVENT[MessageAdded]
_ERROR = TOPIC_BY_EVENT[ErrorReported]
_AUTHENTICATION = TOPIC_BY_EVENT[AuthenticationFailed]


class Opener:
    """Opens the sealed fields of one record; `unreadable` is why the first that failed did."""

    def __init__(self, envelope: Envelope, tenant: str, user: str, session_id: bytes) -> None:
        self._envelope = envelope
        self._owner = (tenant, user, session_id)
        self.unreadable: str | None = None

    def text(self, event_id: bytes, topic: str, field: str, key_id: bytes | None, sealed: bytes | None) -> str | None:
        """The field as text; None where it is absent or does not open."""
        return self._open(event_id, topic, field, key_id, sealed, lambda opened: as_text(field, opened))

    def json(self, event_id: bytes, topic: str, field: str, key_id: bytes | None, sealed: bytes | None) -> Json:
        """The field as what its JSON says; None where it is absent or does not open."""
        return self._open(event_id, topic, field, key_id, sealed, lambda opened: _parsed(field, opened))

    def _open(
        self,
        event_id: bytes,
        topic: str,
        field: str,
        key_id: bytes | None,
        sealed: bytes | None,
        read: Callable[[bytes], T],
    ) -> T | None:
        if sealed is None:
            return None
        try:
            return read(open_sealed(self._envelope, *self._owner, event_id, topic, field, key_id, sealed))
        except (KeyUnavailable, ContentUnreadable, ContentGone) as error:
            if self.unreadable is None:
                self.unreadable = f"{error.code}: {error}"
            return None


def _parsed(field: str, opened: bytes) -> Json:
    try:
        return json.loads(as_text(field, opened))
    except ValueError as error:
        raise ContentUnreadable(f"{field} opens to what is no JSON") from error


def session_view(
    row: Row, content: Sequence[Row], agents: Sequence[bytes], envelope: Envelope, now: int
) -> SessionView:
    """A row of `sessions` with its rows of `session_content`; `now` in microseconds tells whether it is timed out.

    The user is named by the id where the way back from a pseudonym opens; likewise in the other records.
    """
    opener = Opener(envelope, row["tenant"], row["user"], row["session_id"])
    opened: dict[str, Json] = {}
    for sealed in content:
        field = sealed["field"]
        place = (sealed["event_id"], TOPIC_PREFIX + sealed["event_type"], f"sealed_{field}")
        read = opener.json if field in ("context", "metadata") else opener.text
        opened[field] = read(*place, sealed["key_id"], sealed["sealed"])
    return SessionView(
        session_id=format_id(row["session_id"]),
        thread_id=format_id(row["session_id"]),
        tenant=row["tenant"],
        user=envelope.pseudonyms.user_of(row["tenant"], row["user"]),
        status=row["status"],
        timed_out=row["status"] == "live" and row["due_at"] <= now,
        kind=row["kind"],
        channel=row["channel"],
        domain=row["domain"],
        title=opened.get("title"),
        context=opened.get("context"),
        metadata=_merged(row["metadata"], opened.get("metadata")),
        ip_address=opened.get("ip_address"),
        created_at=as_datetime(row["created_at"]),
        occurred_at=as_datetime_or_none(row["occurred_at"]),
        last_active_at=as_datetime(row["last_active_at"]),
        due_at=as_datetime(row["due_at"]),
        expires_at=as_datetime(row["expires_at"]),
        idle_timeout=timedelta(milliseconds=row["idle_timeout_ms"]),
        ended_at=as_datetime_or_none(row["ended_at"]),
        end_occurred_at=as_datetime_or_none(row["end_occurred_at"]),
        end_reason=row["end_reason"],
        ended_by=row["ended_by"],
        note=opened.get("note"),
        replaced_by=_id_or_none(row["replaced_by"]),
        erased_at=as_datetime_or_none(row["erased_at"]),
        session_limit=row["session_limit"],
        limit_policy=row["limit_policy"],
        messages=row["messages"],
        tokens_in=row["tokens_in"],
        tokens_out=row["tokens_out"],
        errors=row["errors"],
        agents=tuple(map(format_id, agents)),
        version=row["version"],
        partition=row["partition"],
        position=row["position"],
        unreadable=opener.unreadable,
    )


def legal_hold_view(row: Row, user_of: Callable[[str, str], str]) -> LegalHoldView:
    """A row of `legal_holds`; `user_of`: tenant and user as recorded, to the user's id."""
    return LegalHoldView(
        tenant=row["tenant"],
        user=user_of(row["tenant"], row["user"]) or None,
        session_id=format_id(row["session_id"]) if row["session_id"] else None,
        matter=row["matter"],
        requested_by=row["requested_by"],
        reason=row["reason"],
        set_at=as_datetime(row["recorded_at"]),
    )


def message_view(row: Row, tenant: str, user: str, envelope: Envelope) -> MessageView:
    """A row of `messages`."""
    opener = Opener(envelope, tenant, user, row["session_id"])
    event_id, key_id = row["event_id"], row["key_id"]
    return MessageView(
        session_id=format_id(row["session_id"]),
        number=row["number"],
        role=row["role"],
        content=opener.text(event_id, _MESSAGE, "sealed_content", key_id, row["sealed_content"]),
        parts=opener.json(event_id, _MESSAGE, "sealed_parts", key_id, row["sealed_parts"]),
        model=row["model"],
        tokens_in=row["tokens_in"],
        tokens_out=row["tokens_out"],
        latency_ms=row["latency_ms"],
        audio_url=opener.text(event_id, _MESSAGE, "sealed_audio_url", key_id, row["sealed_audio_url"]),
        audio_duration_ms=row["audio_duration_ms"],
        metadata=_merged(
            row["metadata"], opener.json(event_id, _MESSAGE, "sealed_metadata", key_id, row["sealed_metadata"])
        ),
        recorded_at=as_datetime(row["recorded_at"]),
        occurred_at=as_datetime_or_none(row["occurred_at"]),
        event_id=format_id(event_id),
        partition=row["partition"],
        position=row["position"],
        unreadable=opener.unreadable,
    )


def error_view(row: Row, tenant: str, user: str, envelope: Envelope) -> ErrorView:
    """A row of `session_errors`."""
    opener = Opener(envelope, tenant, user, row["session_id"])
    message = opener.text(row["event_id"], _ERROR, "sealed_message", row["key_id"], row["sealed_message"])
    return ErrorView(
        session_id=format_id(row["session_id"]),
        component=row["component"],
        error_type=row["error_type"],
        severity=row["severity"],
        message=message,
        agent_id=_id_or_none(row["agent_id"]),
        recorded_at=as_datetime(row["recorded_at"]),
        occurred_at=as_datetime_or_none(row["occurred_at"]),
        partition=row["partition"],
        position=row["position"],
        unreadable=opener.unreadable,
    )


def authentication_failure_view(row: Row, envelope: Envelope) -> AuthenticationFailureView:
    """A row of `authentication_failures`; its address is sealed by the user's own key."""
    opener = Opener(envelope, row["tenant"], row["user"], b"")
    address = opener.text(
        row["event_id"], _AUTHENTICATION, "sealed_ip_address", row["key_id"], row["sealed_ip_address"]
    )
    return AuthenticationFailureView(
        tenant=row["tenant"],
        user=envelope.pseudonyms.user_of(row["tenant"], row["user"]),
        session_id=_id_or_none(row["session_id"]),
        method=row["method"],
        reason=row["reason"],
        ip_address=address,
        attempts=row["attempts"],
        recorded_at=as_datetime(row["recorded_at"]),
        occurred_at=as_datetime_or_none(row["occurred_at"]),
        partition=row["partition"],
        position=row["position"],
        unreadable=opener.unreadable,
    )


def agent_view(row: Row) -> AgentView:
    """A row of `agents`."""
    status = "retired" if row["retired_at"] is not None else "free" if row["held_by"] is None else "held"
    return AgentView(
        agent_id=format_id(row["agent_id"]),
        tenant=row["tenant"],
        agent_type=row["agent_type"],
        capabilities=tuple(json.loads(row["capabilities"])),
        status=status,
        held_by=_id_or_none(row["held_by"]),
        held_since=as_datetime_or_none(row["held_since"]),
        leases=row["leases"],
        last_reset=row["last_reset"],
        registered_at=as_datetime(row["registered_at"]),
        retired_at=as_datetime_or_none(row["retired_at"]),
        retired_reason=row["retired_reason"],
        partition=row["partition"],
        position=row["position"],
    )


def _merged(clear: str | None, sealed: Json) -> dict[str, str]:
    return (json.loads(clear) if clear else {}) | (sealed or {})


def _id_or_none(identifier: bytes | None) -> str | None:
    return None if identifier is None else format_id(identifier)
