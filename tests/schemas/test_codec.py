"""The codec: events to bytes and back, and what it says to bytes that are no event."""

from __future__ import annotations

import dataclasses
import io
import json
from decimal import Decimal
from typing import cast

import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.errors import InvalidInput, UndecodableRecord
from session_ledger.domain.events import (
    EVENT_TYPES,
    TOPIC_BY_EVENT,
    Event,
    LimitsSet,
    MessageAdded,
    QuotaDefault,
    QuotaReleased,
    SessionExpired,
)
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.registry import MemoryRegistry
from tests.schemas.readers import as_read
from tests.schemas.strategies import LIBRARY, any_event, events

CODEC = Codec(LIBRARY)
CONFLUENT = Codec(LIBRARY, MemoryRegistry())
PARSED = {cls: parse_schema(json.loads(LIBRARY.of(cls).text)) for cls in EVENT_TYPES}

each_event_type = pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda cls: cls.__name__)

EXPIRED = SessionExpired(
    event_id=bytes(range(16)),
    tenant="acme",
    user="ada",
    version=3,
    recorded_at=1_763_705_530_123_456,
    command_id=None,
    command_digest=None,
    session_id=bytes(range(16, 32)),
    reason="idle",
    due_at=1_763_705_500_000_000,
)


@each_event_type
@given(data=st.data())
def test_an_event_comes_back_as_it_was(event_type: type[Event], data: st.DataObject) -> None:
    """Round trip, in both wire forms, for any values that the schema allows."""
    event = data.draw(events(event_type))
    topic = TOPIC_BY_EVENT[event_type]
    assert event == CODEC.decode(CODEC.encode(event), topic)
    assert event == CONFLUENT.decode(CONFLUENT.encode(event), topic)


@each_event_type
@given(data=st.data())
def test_the_bytes_are_those_of_another_avro_library(event_type: type[Event], data: st.DataObject) -> None:
    """Generated encoders write what fastavro writes from the schema with its logical types; fastavro reads it back."""
    event = data.draw(events(event_type, datetimes=True))
    out = io.BytesIO()
    schemaless_writer(out, PARSED[event_type], as_read(event))
    assert b"\xc3\x01" + LIBRARY.of(event_type).fingerprint + out.getvalue() == CODEC.encode(event)
    assert as_read(event) == schemaless_reader(io.BytesIO(out.getvalue()), PARSED[event_type], None)


def test_the_single_object_form_is_marker_fingerprint_body() -> None:
    """The bytes of a known event, part by part, as the Avro specification puts them."""
    value = CODEC.encode(EXPIRED)
    assert b"\xc3\x01" == value[:2]
    assert LIBRARY.of(SessionExpired).fingerprint == value[2:10]
    assert bytes(range(16)) + b"\x08acme\x06ada\x06" == value[10:36]
    assert b"\x00\x00" + bytes(range(16, 32)) + b"\x08idle" == value[44:67]


def test_the_confluent_form_is_zero_id_body() -> None:
    """The same body behind the five bytes of a schema registry."""
    codec = Codec(LIBRARY, MemoryRegistry())
    assert b"\x00\x00\x00\x00\x01" + CODEC.encode(EXPIRED)[10:] == codec.encode(EXPIRED)


def test_a_codec_with_a_registry_reads_both_forms() -> None:
    """Records written before the registry came are read beside those after."""
    assert EXPIRED == CONFLUENT.decode(CODEC.encode(EXPIRED))


def test_a_codec_that_has_the_ids_asks_no_registry() -> None:
    """Neither to write nor to read what was written so: a registry may be away while a ledger runs."""

    class Away(MemoryRegistry):
        def id_of(self, subject: str, schema_json: str) -> int:
            raise AssertionError(subject)

        def text_of(self, schema_id: int) -> str | None:
            raise AssertionError(schema_id)

    ids = {schema.topic: number for number, schema in enumerate(LIBRARY, 40)}
    codec = Codec(LIBRARY, Away(), ids=ids)
    value = codec.encode(EXPIRED)
    assert ids[TOPIC_BY_EVENT[SessionExpired]].to_bytes(4, "big") == value[1:5]
    assert EXPIRED == codec.decode(value)


@given(event=any_event())
def test_truncated_bytes_are_undecodable_at_every_length(event: Event) -> None:
    """No prefix of a record is taken for a record."""
    value = CODEC.encode(event)
    for size in range(len(value)):
        with pytest.raises(UndecodableRecord):
            CODEC.decode(value[:size])


@given(event=any_event(), more=st.binary(min_size=1, max_size=20))
def test_trailing_bytes_are_undecodable(event: Event, more: bytes) -> None:
    """Nothing may follow the event."""
    with pytest.raises(UndecodableRecord, match=f"{len(more)} trailing bytes"):
        CODEC.decode(CODEC.encode(event) + more)


def decodes_or_refuses(codec: Codec, value: bytes) -> None:
    """Decode; what decodes must be something that can be written."""
    try:
        event = codec.decode(value, partition=2, position=7)
    except UndecodableRecord as refusal:
        found = refusal.partition, refusal.position
        assert (2, 7) == found
    else:
        assert event == codec.decode(codec.encode(event))


@given(value=st.binary(max_size=300), event_type=st.sampled_from(EVENT_TYPES))
def test_random_bytes_never_raise_anything_else(value: bytes, event_type: type[Event]) -> None:
    """Random bytes, alone and behind a valid header of each form, decode or are UndecodableRecord."""
    decodes_or_refuses(CODEC, value)
    decodes_or_refuses(CODEC, b"\xc3\x01" + LIBRARY.of(event_type).fingerprint + value)
    decodes_or_refuses(CONFLUENT, b"\x00\x00\x00\x00\x01" + value)
    decodes_or_refuses(CONFLUENT, b"\x00" + value)


@given(event=any_event(), data=st.data())
def test_mutated_records_never_raise_anything_else(event: Event, data: st.DataObject) -> None:
    """Bytes changed, removed and inserted anywhere in a record decode or are UndecodableRecord."""
    value = bytearray(CODEC.encode(event))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(value) - 1))
        cut = data.draw(st.integers(0, 3))
        value[place : place + cut] = data.draw(st.binary(min_size=1, max_size=10))
    decodes_or_refuses(CODEC, bytes(value))


BODY = CODEC.encode(EXPIRED)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "begin with"),
        (b"\x00\x00\x00\x00\x01" + BODY[10:], "no registry"),
        (b"\xc3\x01" + bytes(8) + BODY[10:], "no known schema has the fingerprint 0000000000000000"),
        (b"\xc3", "begin with"),
        (BODY[:9], "truncated"),
        (BODY[:-1], "truncated"),
        (BODY + b"\x00", "1 trailing bytes"),
        (BODY.replace(b"acme", b"a\xffme"), "not UTF-8"),
        (BODY[:44] + b"\x04" + BODY[45:], "branch of a union"),
        (BODY[:26] + b"\x07" + BODY[27:], "negative"),
        (BODY[:-8] + b"\xff" * 8, "truncated"),
        (BODY[:-8] + b"\xff" * 11, "longer than 10 bytes"),
        (BODY[:-8] + b"\xff" * 9 + b"\x02", "outside 64 bits"),
    ],
)
def test_damaged_bytes_say_what_is_wrong_and_where(value: bytes, reason: str) -> None:
    """Each kind of damage is an UndecodableRecord with its reason, partition and position."""
    with pytest.raises(UndecodableRecord, match=reason) as caught:
        CODEC.decode(value, partition=3, position=41)
    assert (3, 41) == (caught.value.partition, caught.value.position)
    assert "partition 3, position 41" in str(caught.value)


def test_a_record_whose_place_says_another_type_is_undecodable() -> None:
    """The topic beside the bytes must agree with the schema that they name."""
    with pytest.raises(UndecodableRecord, match=r"is a session_ledger\.events\.SessionExpired.*MessageAdded"):
        CODEC.decode(BODY, TOPIC_BY_EVENT[MessageAdded], partition=0, position=1)


def test_an_id_that_the_registry_does_not_have_is_undecodable() -> None:
    """A Confluent id without a schema behind it."""
    with pytest.raises(UndecodableRecord, match="no schema with id 99"):
        CONFLUENT.decode(b"\x00\x00\x00\x00\x63" + BODY[10:])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"event_id": bytes(15)}, "event_id"),
        ({"event_id": None}, "event_id"),
        ({"session_id": "text"}, "session_id"),
        ({"tenant": 5}, "tenant"),
        ({"tenant": b"acme"}, "tenant"),
        ({"user": "\ud800"}, "user"),
        ({"version": 1.0}, "version"),
        ({"due_at": 1 << 63}, "due_at"),
        ({"recorded_at": "now"}, "recorded_at"),
        ({"command_id": bytes(17)}, "command_id"),
    ],
)
def test_a_value_without_a_place_in_the_schema_is_never_written(change: dict[str, object], field: str) -> None:
    """Wrong types, sizes and ranges raise InvalidInput that names the field; no bytes come out."""
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(dataclasses.replace(EXPIRED, **change))  # type: ignore[arg-type]
    assert f"SessionExpired.{field}" == caught.value.field


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "0.0000001", "1000000000000", "1E+30"])
def test_an_amount_beyond_precision_and_scale_is_never_written(amount: str) -> None:
    """Six decimals and twelve digits before them; nothing is rounded."""
    shared = (bytes(16), "acme", "ada", 1, 0, None, None)
    with pytest.raises(InvalidInput) as caught:
        CODEC.encode(QuotaReleased(*shared, "tokens", Decimal(amount), bytes(16)))
    assert "QuotaReleased.amount" == caught.value.field


def test_what_is_no_event_is_never_written() -> None:
    """Only the event types of the domain have a schema."""
    with pytest.raises(InvalidInput, match="EVENT_TYPES"):
        CODEC.encode(cast(Event, object()))


def test_equal_texts_are_one_object_after_decoding() -> None:
    """Short texts that repeat from record to record share memory."""
    first, second = CODEC.decode(BODY), CODEC.decode(bytes(BODY))
    assert first.tenant is second.tenant


def test_settings_keep_their_nested_records() -> None:
    """A LimitsSet with default quotas comes back with QuotaDefault values in a tuple."""
    quotas = (QuotaDefault("tokens", Decimal("10.5"), 60_000), QuotaDefault("api_calls", Decimal(3), 1_000))
    event = LimitsSet(bytes(16), "acme", "", 1, 0, None, None, None, 5, "evict", None, None, None, None, 80, quotas)
    assert event == CODEC.decode(CODEC.encode(event))
