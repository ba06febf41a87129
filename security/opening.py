"""Opening sealed fields, of events and of rows that were copied from them."""

from __future__ import annotations

from session_ledger.domain.errors import ContentGone, ContentUnreadable, KeyUnavailable
from session_ledger.domain.events import TOPIC_BY_EVENT, Event, SessionEvent
from session_ledger.domain.ids import format_id
from session_ledger.security.port import Envelope


def open_field(envelope: Envelope, event: Event, field: str) -> bytes | None:
    """The plaintext of one of the event's sealed fields, by its attribute's name (`sealed_content`); None: absent.

    Raises KeyUnavailable where the data key is not there (any more), ContentUnreadable where the bytes do not open,
    AttributeError where the event has no such field.
    """
    sealed: bytes | None = getattr(event, field)
    if sealed is None:
        return None
    session_id = event.session_id if isinstance(event, SessionEvent) else b""
    key_id: bytes | None = event.key_id  # type: ignore[attr-defined]  # whatever has sealed fields has it
    topic = TOPIC_BY_EVENT[type(event)]
    return open_sealed(envelope, event.tenant, event.user, session_id, event.event_id, topic, field, key_id, sealed)


def open_text(envelope: Envelope, event: Event, field: str) -> str | None:
    """Like `open_field`, as text (UTF-8)."""
    opened = open_field(envelope, event, field)
    return None if opened is None else as_text(field, opened)


def open_sealed(
    envelope: Envelope,
    tenant: str,
    user: str,
    session_id: bytes,
    event_id: bytes,
    topic: str,
    field: str,
    key_id: bytes | None,
    sealed: bytes,
) -> bytes:
    """The plaintext of a sealed field from a row: whose it is, the event it came from, and the field's bytes.

    `session_id` is b"" for events of an account. Raises KeyUnavailable, ContentUnreadable, and ContentGone for the
    empty bytes that an erasure leaves.
    """
    if not sealed:
        raise ContentGone(f"{field} was erased")
    key = envelope.opening_key(tenant, user, session_id, key_id)
    if key is None:
        if key_id is None:
            raise ContentUnreadable(
                f"{field} was recorded with sealing off, and this ledger was opened with sealing on"
            )
        raise KeyUnavailable(f"{field} was sealed by data key {format_id(key_id)}, which is not in the vault")
    return key.open(event_id, topic, field, sealed)


def as_text(field: str, opened: bytes) -> str:
    """Opened bytes as text. Raises ContentUnreadable where they are not UTF-8."""
    try:
        return opened.decode()
    except UnicodeDecodeError:
        raise ContentUnreadable(f"{field} opens to {len(opened)} bytes that are not UTF-8") from None
