"""Opening fields of events and of rows."""

from __future__ import annotations

import pytest

from session_ledger.domain.errors import ContentUnreadable, KeyUnavailable
from session_ledger.domain.events import AuthenticationFailed, MessageAdded, SessionEnded
from session_ledger.security.envelope import NoEnvelope, VaultEnvelope
from session_ledger.security.opening import open_field, open_sealed, open_text
from session_ledger.security.port import DataKey
from session_ledger.security.sealing import wrapping_data
from session_ledger.security.vault import SQLiteVault, StoredKey
from tests.security.made import EVENT, FIELD, MESSAGE, SESSION, TENANT, USER, durable_key

TEXT = "Grüße ☕"


def message(key: DataKey, content: bytes = TEXT.encode()) -> MessageAdded:
    """A message whose content is sealed by the key."""
    return MessageAdded(
        event_id=EVENT, tenant=TENANT, user=USER, version=2, recorded_at=1, command_id=None, command_digest=None,
        session_id=SESSION, occurred_at=None, message_number=1, role="user", model=None, tokens_in=None,
        tokens_out=None, latency_ms=None, audio_duration_ms=None, key_id=key.key_id, metadata={}, sealed_metadata=None,
        sealed_content=key.seal(EVENT, MESSAGE, FIELD, content), sealed_parts=None, sealed_audio_url=None,
    )  # fmt: skip


def test_a_sealed_field_of_an_event_opens(envelope: VaultEnvelope) -> None:
    """As bytes and as text; None where the event has none."""
    event = message(durable_key(envelope))
    assert TEXT.encode() == open_field(envelope, event, "sealed_content")
    assert TEXT == open_text(envelope, event, "sealed_content")
    assert None is open_field(envelope, event, "sealed_parts")
    assert None is open_text(envelope, event, "sealed_parts")


def test_without_sealing_events_open_too() -> None:
    """The same call reads what was recorded with sealing off."""
    envelope = NoEnvelope()
    key = envelope.session_key(TENANT, USER, SESSION)
    assert key is not None
    assert TEXT == open_text(envelope, message(key), "sealed_content")


def test_an_accounts_field_opens_with_the_accounts_key(envelope: VaultEnvelope) -> None:
    """A failed authentication names a session, but belongs to the account and its key."""
    key = envelope.account_key(TENANT, USER, create=True)
    assert key is not None
    sealed = key.seal(EVENT, "session_ledger.events.AuthenticationFailed", "sealed_ip_address", b"192.0.2.7")
    event = AuthenticationFailed(
        event_id=EVENT, tenant=TENANT, user=USER, version=1, recorded_at=1, command_id=None, command_digest=None,
        occurred_at=None, session_id=SESSION, method="password", reason="bad_credential", key_id=key.key_id,
        sealed_ip_address=sealed,
    )  # fmt: skip
    assert "192.0.2.7" == open_text(envelope, event, "sealed_ip_address")


def test_a_row_opens_by_its_columns(envelope: VaultEnvelope) -> None:
    """The lower form needs no event, and is as strict about the place."""
    event = message(durable_key(envelope))
    place = (event.event_id, MESSAGE, FIELD, event.key_id, event.sealed_content)
    assert TEXT.encode() == open_sealed(envelope, TENANT, USER, SESSION, *place)
    with pytest.raises(KeyUnavailable):
        open_sealed(envelope, TENANT, "bob", SESSION, *place)
    with pytest.raises(ContentUnreadable):
        open_sealed(envelope, TENANT, USER, SESSION, b"x" * 16, *place[1:])


def test_a_key_that_is_gone_is_a_typed_error(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """KeyUnavailable names the data key; whether that means erased is the caller's to decide."""
    event = message(envelope.session_key(TENANT, USER, SESSION, create=True) or pytest.fail("no key"))
    envelope.close()
    with pytest.raises(KeyUnavailable, match="not in the vault"):
        open_field(envelope, event, "sealed_content")
    durable_key(envelope)
    with pytest.raises(KeyUnavailable, match="not in the vault"):
        open_field(envelope, event, "sealed_content")


def test_an_older_generation_still_opens(envelope: VaultEnvelope, vault: SQLiteVault) -> None:
    """Where the scope has a newer key, events open with the one that they name."""
    old = durable_key(envelope)
    event = message(old)
    key_id = b"2" * 16
    wrapping_key_id, wrapped = envelope._tenants.wrap(TENANT, b"n" * 32, wrapping_data(old.scope_bytes, key_id))
    vault.insert_if_absent([StoredKey(SESSION, TENANT, USER, 2, key_id, wrapping_key_id, wrapped, 1)])
    envelope.close()
    newer = envelope.session_key(TENANT, USER, SESSION)
    assert newer is not None
    assert key_id == newer.key_id
    assert TEXT == open_text(envelope, event, "sealed_content")
    assert TEXT == open_text(envelope, message(newer), "sealed_content")


def test_sealing_on_and_off_do_not_mix(envelope: VaultEnvelope) -> None:
    """An unsealed event under sealing, and a sealed one without: ContentUnreadable that says which."""
    plain = NoEnvelope().session_key(TENANT, USER, SESSION)
    assert plain is not None
    with pytest.raises(ContentUnreadable, match="recorded with sealing off"):
        open_field(envelope, message(plain), "sealed_content")
    with pytest.raises(ContentUnreadable, match="keyring"):
        open_field(NoEnvelope(), message(durable_key(envelope)), "sealed_content")


def test_bytes_that_are_no_text_are_said(envelope: VaultEnvelope) -> None:
    """ContentUnreadable gives the length, not the bytes."""
    event = message(durable_key(envelope), b"\xff\xfe")
    with pytest.raises(ContentUnreadable, match="2 bytes that are not UTF-8"):
        open_text(envelope, event, "sealed_content")


def test_an_event_without_such_a_field_is_a_defect_of_the_caller(envelope: VaultEnvelope) -> None:
    """AttributeError, not None, for a field that the event type does not have."""
    key = durable_key(envelope)
    ended = SessionEnded(EVENT, TENANT, USER, 3, 1, None, None, SESSION, None, "completed", "user", key.key_id, None)
    assert None is open_field(envelope, ended, "sealed_note")
    with pytest.raises(AttributeError):
        open_field(envelope, ended, "sealed_content")
