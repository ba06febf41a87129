"""Events as JSON for people and exports."""

from __future__ import annotations

import base64
import json
from decimal import Decimal

import pytest
from hypothesis import given

from session_ledger.domain.events import Event, LimitsSet, MessageAdded, QuotaDefault, QuotaReleased, SchemaPublished
from session_ledger.schemas.present import present
from tests.schemas.strategies import SHAPES, any_event

SHARED = (bytes(range(16)), "acme", "ada", 4, 1_763_705_530_000_000, None, bytes(range(16)))
ID = "00010203-0405-0607-0809-0a0b0c0d0e0f"


@given(event=any_event())
def test_every_event_is_json_with_its_type_and_every_field(event: Event) -> None:
    """Any event becomes JSON text, "type" first and the schema's fields after it."""
    shown = present(event)
    assert ["type", *(name for name, _ in SHAPES[type(event)].fields)] == list(shown)
    assert shown == json.loads(json.dumps(shown))


def test_a_message_is_shown_in_words() -> None:
    """Ids as UUID text, digests in hexadecimal, times as ISO 8601 with Z, ciphertext in base64, null for None."""
    sealed = b"\x01\xfe\xff"
    message = MessageAdded(
        *SHARED,
        session_id=bytes(range(16)),
        occurred_at=None,
        message_number=7,
        role="user",
        model=None,
        tokens_in=12,
        tokens_out=None,
        latency_ms=None,
        audio_duration_ms=None,
        key_id=None,
        metadata={"a": "b"},
        sealed_metadata=None,
        sealed_content=sealed,
        sealed_parts=None,
        sealed_audio_url=None,
    )
    shown = present(message)
    assert {
        "type": "MessageAdded",
        "event_id": ID,
        "tenant": "acme",
        "user": "ada",
        "version": 4,
        "recorded_at": "2025-11-21T06:12:10.000000Z",
        "command_id": None,
        "command_digest": "000102030405060708090a0b0c0d0e0f",
        "session_id": ID,
    } == dict(list(shown.items())[:9])
    assert (12, {"a": "b"}) == (shown["tokens_in"], shown["metadata"])
    assert base64.b64encode(sealed).decode() == shown["sealed_content"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0.000000", "0"), ("5.000000", "5"), ("100", "100"), ("1E+3", "1000"), ("0.5", "0.5"), ("0.000001", "0.000001")],
)
def test_amounts_are_plain_decimal_text(amount: str, text: str) -> None:
    """The same amount has one text, whatever its trailing zeros; never an exponent, never a float."""
    assert text == present(QuotaReleased(*SHARED, "tokens", Decimal(amount), bytes(16)))["amount"]


def test_nested_records_and_fingerprints_are_shown() -> None:
    """Default quotas as objects, a fingerprint in hexadecimal."""
    quotas = (QuotaDefault("tokens", Decimal("2.50"), 1000),)
    settings = LimitsSet(*SHARED, None, None, None, None, None, None, None, None, quotas)
    assert [{"resource": "tokens", "limit": "2.5", "period_ms": 1000}] == present(settings)["quotas"]
    assert "0102030405060708" == present(SchemaPublished(*SHARED, "n", bytes(range(1, 9)), "{}"))["fingerprint"]


def test_a_time_beyond_the_calendar_stays_a_number() -> None:
    """Microseconds that no date of Python's can hold are shown as they are, not as an error."""
    far = (SHARED[0], "acme", "ada", 1, 1 << 62, None, None)
    assert 1 << 62 == present(QuotaReleased(*far, "tokens", Decimal(1), bytes(16)))["recorded_at"]
