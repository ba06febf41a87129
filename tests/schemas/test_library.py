"""The library of schemas, and reading what other versions wrote."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from session_ledger.domain.errors import InvalidInput, UndecodableRecord
from session_ledger.domain.events import EVENT_TYPES, TOPIC_BY_EVENT, LimitsSet, QuotaDefault, SessionExpired
from session_ledger.schemas.codec import Codec
from session_ledger.schemas.library import Library, parse
from session_ledger.schemas.registry import MemoryRegistry
from tests.schemas.golden import example
from tests.schemas.strategies import LIBRARY, SHAPES

EXPIRED = SessionExpired(bytes(16), "acme", "ada", 3, 1000, None, None, bytes(16), "idle", 900)
NEWER = {"name": "grace_ms", "type": ["null", "long"], "default": None, "doc": "A field of a newer version."}
STRANGE = {"name": "tone", "type": {"type": "enum", "name": "Tone", "symbols": ["LOW", "HIGH"]}, "doc": "Likewise."}


def changed(event_type: type, *new_fields: dict[str, Any], without: str = "") -> str:
    """The schema of another version: with fields more or one less."""
    schema = json.loads(LIBRARY.of(event_type).text)
    schema["fields"] = [field for field in schema["fields"] if field["name"] != without] + list(new_fields)
    return json.dumps(schema)


def written(schema_json: str, values: dict[str, Any]) -> bytes:
    """A record of that schema in the single-object form, by another Avro library."""
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(json.loads(schema_json)), values)
    return b"\xc3\x01" + parse(schema_json).fingerprint + out.getvalue()


def values_of(event: object) -> dict[str, Any]:
    return {name: getattr(event, name) for name, _ in SHAPES[type(event)].fields}  # type: ignore[index]


def test_every_event_type_has_its_schema() -> None:
    """By class, by topic and by fingerprint: the same one."""
    for event_type in EVENT_TYPES:
        schema = LIBRARY.of(event_type)
        assert (TOPIC_BY_EVENT[event_type], event_type) == (schema.topic, schema.event_type)
        assert schema is LIBRARY.by_topic(schema.topic)
        assert schema is LIBRARY.by_fingerprint(schema.fingerprint)
    assert [LIBRARY.of(event_type) for event_type in EVENT_TYPES] == list(LIBRARY)


def test_fingerprints_are_crc_64_avro_of_the_canonical_form() -> None:
    """Against the specification's algorithm, written out."""

    def crc(data: bytes) -> bytes:
        value = 0xC15D213AA4D7A795
        for byte in data:
            value ^= byte
            for _ in range(8):
                value = (value >> 1) ^ (0xC15D213AA4D7A795 if value & 1 else 0)
        return value.to_bytes(8, "little")

    for schema in LIBRARY:
        assert crc(schema.canonical.encode()) == schema.fingerprint


def test_a_newer_writers_record_is_read_once_its_schema_is_learned() -> None:
    """Before: undecodable, naming the fingerprint. After: the fields that this version knows, the others dropped."""
    codec = Codec(Library())
    text = changed(SessionExpired, NEWER, STRANGE)
    value = written(text, {**values_of(EXPIRED), "grace_ms": 5, "tone": "HIGH"})
    with pytest.raises(UndecodableRecord, match=value[2:10].hex()):
        codec.decode(value)
    codec.library.learn(text)
    assert EXPIRED == codec.decode(value, TOPIC_BY_EVENT[SessionExpired])


def test_an_older_writers_record_takes_the_defaults_of_new_fields() -> None:
    """A field that the writer did not have yet has the schema's default."""
    codec = Codec(Library())
    text = changed(SessionExpired, without="command_digest")
    codec.library.learn(text)
    values = values_of(EXPIRED)
    del values["command_digest"]
    assert EXPIRED == codec.decode(written(text, values))


def test_records_of_another_version_with_nested_values_are_read() -> None:
    """Decimals, tuples and nested records come out of resolution as out of the current schema."""
    codec = Codec(Library())
    event = example(LimitsSet, SHAPES[LimitsSet])
    assert isinstance(event, LimitsSet)
    text = changed(LimitsSet, NEWER)
    codec.library.learn(text)
    quotas = [{"resource": q.resource, "limit": q.limit, "period_ms": q.period_ms} for q in event.quotas]
    found = codec.decode(written(text, {**values_of(event), "quotas": quotas, "grace_ms": None}))
    assert event == found
    assert isinstance(found, LimitsSet)
    assert isinstance(found.quotas[0], QuotaDefault)


@given(junk=st.binary(max_size=200), data=st.data())
def test_damaged_records_of_another_version_are_undecodable(junk: bytes, data: st.DataObject) -> None:
    """Random bodies, truncations and mutations: decoded or UndecodableRecord, through resolution too."""
    codec = Codec(LEARNED)
    value = written(NEWER_TEXT, {**values_of(EXPIRED), "grace_ms": 5})
    cut = data.draw(st.integers(0, len(value) - 11))
    for damaged in (value[:10] + junk, value[: 10 + cut], value[: 10 + cut] + junk + value[10 + cut + 2 :]):
        try:
            codec.decode(damaged)
        except UndecodableRecord as refusal:
            assert str(refusal)  # noqa: PT017
    for size in range(len(value)):
        with pytest.raises(UndecodableRecord):
            codec.decode(value[:size])
    with pytest.raises(UndecodableRecord, match="trailing"):
        codec.decode(value + b"\x00")


NEWER_TEXT = changed(SessionExpired, NEWER)
LEARNED = Library()
LEARNED.learn(NEWER_TEXT)


def test_an_event_type_of_a_newer_version_is_undecodable_by_name() -> None:
    """A schema can be learned whose event type this version does not have; its records say so."""
    codec = Codec(Library())
    text = json.dumps({"type": "record", "name": "session_ledger.events.SessionForked", "fields": []})
    assert codec.library.learn(text).event_type is None
    with pytest.raises(UndecodableRecord, match=r"no event type session_ledger\.events\.SessionForked"):
        codec.decode(written(text, {}))


def test_a_registrys_newer_schema_is_resolved_too() -> None:
    """The Confluent form of a newer writer, whose schema the registry has."""
    registry = MemoryRegistry()
    text = changed(SessionExpired, NEWER)
    header = b"\x00" + registry.id_of(TOPIC_BY_EVENT[SessionExpired], text).to_bytes(4, "big")
    value = written(text, {**values_of(EXPIRED), "grace_ms": 5})
    assert EXPIRED == Codec(Library(), registry).decode(header + value[10:])


def test_a_registry_that_holds_no_schema_behind_an_id_is_no_crash() -> None:
    """Nonsense under an id is an undecodable record."""
    registry = MemoryRegistry()
    registry.id_of("x", "{nonsense")
    with pytest.raises(UndecodableRecord, match="registry's schema with id 1"):
        Codec(Library(), registry).decode(b"\x00\x00\x00\x00\x01")


@pytest.mark.parametrize("text", ["", "{", "5", "[]", '"string"', '{"type": "record"}', '{"type": "nonsense"}', "null"])
def test_what_is_no_schema_can_not_be_learned(text: str) -> None:
    """InvalidInput, never another exception."""
    with pytest.raises(InvalidInput, match="schema_json"):
        Library().learn(text)


def test_learning_a_known_schema_changes_nothing() -> None:
    """The current text, published by this version itself, is known already."""
    library = Library()
    schema = library.of(SessionExpired)
    assert schema is library.learn(schema.text)
