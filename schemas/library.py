"""Every schema this ledger can meet: the current one of each event type, all released before, and learned ones.

The current text of a schema is `v1/<EventName>.avsc`; every text that was ever released is
`v1/released/<EventName>.<n>.avsc` and stays there. A schema that a newer writer published as a fact (SchemaPublished)
is learned at run time. A record names the schema it was written with by the CRC-64-AVRO fingerprint of the schema's
canonical form (Avro specification, "Parsing Canonical Form" and "Schema Fingerprints"), 8 bytes, little-endian.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastavro.schema import SchemaParseException, fingerprint, parse_schema, to_parsing_canonical_form

from session_ledger.domain.errors import InvalidInput
from session_ledger.domain.events import EVENT_BY_TOPIC, TOPIC_BY_EVENT, Event

V1 = "session_ledger.schemas.v1"


@dataclass(frozen=True, slots=True)
class Schema:
    """One schema of one event type."""

    topic: str
    """The full name, which is the topic of the events."""
    event_type: type[Event] | None
    """None: an event type that this version of the ledger does not know."""
    text: str
    """The full text, JSON."""
    canonical: str
    """Parsing Canonical Form."""
    fingerprint: bytes
    """CRC-64-AVRO of the canonical form, 8 bytes, little-endian."""

    def parsed(self) -> dict[str, object]:
        """The text as JSON: a record."""
        record: dict[str, object] = json.loads(self.text)
        return record


def parse(text: str) -> Schema:
    """The schema of that text. Raises InvalidInput where it is no Avro record of one of our names."""
    try:
        parsed = parse_schema(json.loads(text))
        canonical = to_parsing_canonical_form(parsed)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, SchemaParseException) as error:
        raise InvalidInput("schema_json", f"no schema ({type(error).__name__})", "must be an Avro record") from error
    if not isinstance(parsed, dict) or parsed.get("type") != "record" or "fields" not in json.loads(text):
        raise InvalidInput("schema_json", "an Avro schema that is no record", "must be an Avro record")
    topic = str(parsed["name"])
    digest = bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
    return Schema(topic, EVENT_BY_TOPIC.get(topic), text, canonical, digest)


def read_current(event_type: type[Event]) -> str:
    """The text of the schema that events of this type are written with."""
    return _read(files(V1) / f"{event_type.__name__}.avsc")


class Library:
    """All schemas by event type, by topic and by fingerprint. Learning is safe beside readers in other threads."""

    def __init__(self) -> None:
        self._current = {cls: parse(read_current(cls)) for cls in TOPIC_BY_EVENT}
        for cls, schema in self._current.items():
            if schema.topic != TOPIC_BY_EVENT[cls]:
                raise InvalidInput(f"{cls.__name__}.avsc", f"the name {schema.topic}", f"must be {TOPIC_BY_EVENT[cls]}")
        self._by_fingerprint = {schema.fingerprint: schema for schema in _released()}
        self._by_fingerprint.update({schema.fingerprint: schema for schema in self._current.values()})

    def __iter__(self) -> Iterator[Schema]:
        """The current schemas, in the order of EVENT_TYPES."""
        return iter(self._current.values())

    def of(self, event_type: type[Event]) -> Schema:
        """The schema that events of this type are written with. Raises KeyError for what is no event type."""
        return self._current[event_type]

    def by_topic(self, topic: str) -> Schema | None:
        """The current schema of that full name; None: no such event type."""
        event_type = EVENT_BY_TOPIC.get(topic)
        return None if event_type is None else self._current[event_type]

    def by_fingerprint(self, digest: bytes) -> Schema | None:
        """Current, released or learned; None: unknown (a newer writer's, not learned yet)."""
        return self._by_fingerprint.get(digest)

    def learn(self, schema_json: str) -> Schema:
        """Add a writer's schema, as a SchemaPublished fact carries it. Learning again changes nothing.

        Raises InvalidInput where the text is no Avro record.
        """
        schema = parse(schema_json)
        return self._by_fingerprint.setdefault(schema.fingerprint, schema)


def _released() -> Iterator[Schema]:
    folder = files(V1) / "released"
    if folder.is_dir():
        yield from (parse(_read(file)) for file in folder.iterdir() if file.name.endswith(".avsc"))


def _read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")
