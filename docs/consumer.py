"""A consumer to begin from, in kafka-python and fastavro alone: messages and tokens a tenant a day, kept in SQLite.

    python docs/consumer.py BOOTSTRAP LEDGER DATABASE [--registry URL] [--once]

It follows a ledger's topic from where it stopped the last time, for ever or, with `--once`, to the end as it is now.
What it must do, and why, is in docs/consumers.md. `--registry` is needed where records are in the Confluent form.
"""

from __future__ import annotations

import argparse
import io
import json
import sqlite3
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form
from kafka import KafkaConsumer, TopicPartition

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas" / "v1"
MESSAGE_ADDED = "session_ledger.events.MessageAdded"
SCHEMA_PUBLISHED = "session_ledger.events.SchemaPublished"
MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # of the ledger's topics
POLL_MS = 500
REGISTRY_S = 5.0  # a registry that does not answer is an error, and the next start goes on from the same place

TABLES = """
CREATE TABLE IF NOT EXISTS progress (
    partition INTEGER PRIMARY KEY, position INTEGER NOT NULL, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (
    tenant TEXT, day TEXT, messages INTEGER NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (tenant, day));
"""
COUNT = """
INSERT INTO messages VALUES (?, ?, 1, ?)
ON CONFLICT DO UPDATE SET messages = messages + 1, tokens = tokens + excluded.tokens
"""


class Stop(Exception):
    """What nobody should step over: the message says where and why."""


class Decoder:
    """Record values to dictionaries, in both forms. A schema is parsed once, whoever gave it."""

    def __init__(self, bootstrap: str, ledger: str, registry: str | None) -> None:
        self._control = (bootstrap, f"{ledger}.control")
        self._registry = registry
        self._by_fingerprint: dict[bytes, Any] = {}
        self._by_id: dict[bytes, Any] = {}
        for file in sorted(SCHEMAS.glob("**/*.avsc")):
            self._learn(file.read_text(encoding="utf-8"))

    def decode(self, value: bytes) -> dict[str, Any]:
        """The event. Raises Stop where no schema can be had; the Avro library's errors where the bytes are damaged."""
        if value[:2] == b"\xc3\x01":  # single-object: fingerprint, body
            header, schema = 10, self._by_fingerprint.get(value[2:10]) or self._published(value[2:10])
        elif value[:1] == b"\x00":  # Confluent: the schema's id in the registry, body
            header, schema = 5, self._by_id.get(value[1:5]) or self._registered(value[1:5])
        else:
            raise Stop(f"a value begins with {value[:2]!r}: no record of a ledger")
        body = io.BytesIO(value[header:])
        event: Any = schemaless_reader(body, schema, None)
        if body.read(1):
            raise Stop("bytes follow the event")
        return dict(event)

    def _learn(self, text: str) -> None:
        schema = json.loads(text)
        digest = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
        self._by_fingerprint[bytes.fromhex(digest)] = parse_schema(schema)

    def _published(self, digest: bytes) -> Any:
        """A schema of a newer writer: it has made it a fact of the control log before it used it."""
        consumer = consumer_of(self._control[0])
        place = TopicPartition(self._control[1], 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        for record in read_to(consumer, consumer.end_offsets([place])):
            if header_of(record, "ce_type") == SCHEMA_PUBLISHED.encode():
                self._learn(self.decode(record.value)["schema_json"])
        consumer.close()
        if digest not in self._by_fingerprint:
            raise Stop(f"no schema here or in {self._control[1]} has the fingerprint {digest.hex()}")
        return self._by_fingerprint[digest]

    def _registered(self, number: bytes) -> Any:
        if self._registry is None:
            raise Stop("a record is in the Confluent form: name its registry by --registry")
        url = f"{self._registry.rstrip('/')}/schemas/ids/{int.from_bytes(number, 'big')}"
        with urllib.request.urlopen(url, timeout=REGISTRY_S) as answer:  # any failure ends the run: nothing is skipped
            self._by_id[number] = parse_schema(json.loads(json.load(answer)["schema"]))
        return self._by_id[number]


def consumer_of(bootstrap: str) -> Any:
    """A Kafka consumer that sees what was committed, all of it, and nothing else."""
    return KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",  # or barriers and appends that were rolled back would be seen
        auto_offset_reset="none",  # or a lost offset would skip records without a word
        enable_auto_commit=False,  # the database says how far we are
        max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
    )


def read_to(consumer: Any, ends: dict[Any, int] | None) -> Iterator[Any]:
    """The records that come, up to the offsets `ends`; None: for ever."""
    while ends is None or any(consumer.position(place) < end for place, end in ends.items()):
        for records in consumer.poll(POLL_MS).values():
            yield from records


def header_of(record: Any, name: str) -> bytes | None:
    """A header's value; None: the record has none of that name."""
    value: bytes | None = dict(record.headers).get(name)
    return value


def apply(db: sqlite3.Connection, record: Any, decoder: Decoder) -> None:
    """One event: what is made of it and how far we are, in one transaction."""
    position = int(header_of(record, "ce_sequence") or 0)
    row = db.execute("SELECT position FROM progress WHERE partition = ?", (record.partition,)).fetchone()
    reached = row[0] if row else 0
    if position != reached + 1:
        raise Stop(f"partition {record.partition}: position {position} stands where {reached + 1} belongs")
    with db:
        if header_of(record, "ce_type") == MESSAGE_ADDED.encode():  # other types, and those to come, are left out
            event = decoder.decode(record.value)
            day = event["recorded_at"].date().isoformat()  # the ledger's clock; occurred_at is what a caller said
            tokens = (event["tokens_in"] or 0) + (event["tokens_out"] or 0)
            db.execute(COUNT, (event["tenant"], day, tokens))
        db.execute("REPLACE INTO progress VALUES (?, ?, ?)", (record.partition, position, record.offset + 1))


def run(bootstrap: str, ledger: str, db: sqlite3.Connection, decoder: Decoder, once: bool) -> int:
    """Follow the ledger's topic; the number of events applied."""
    db.executescript(TABLES)
    topic = f"{ledger}.events"
    consumer = consumer_of(bootstrap)
    places: Iterable[Any] = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    if not places:
        raise Stop(f"there is no topic {topic}")
    consumer.assign(places)
    known = dict(db.execute("SELECT partition, next_offset FROM progress"))
    beginnings = consumer.beginning_offsets(places)
    for place in places:
        consumer.seek(place, known.get(place.partition, beginnings[place]))
    applied = 0
    for record in read_to(consumer, consumer.end_offsets(places) if once else None):
        apply(db, record, decoder)
        applied += 1
    consumer.close()
    return applied


def main() -> None:
    """The command line of this module's docstring."""
    parser = argparse.ArgumentParser(description="messages and tokens of a ledger, a tenant a day")
    parser.add_argument("bootstrap", help="HOST:PORT of a Kafka broker")
    parser.add_argument("ledger", help="the ledger's name")
    parser.add_argument("database", help="a SQLite file, made where it is not there")
    parser.add_argument("--registry", help="URL of the schema registry")
    parser.add_argument("--once", action="store_true", help="stop at the end of the log as it is now")
    given = parser.parse_args()
    db = sqlite3.connect(given.database)
    try:
        decoder = Decoder(given.bootstrap, given.ledger, given.registry)
        print(run(given.bootstrap, given.ledger, db, decoder, given.once), "events")
    except Stop as stop:
        raise SystemExit(str(stop)) from None
    except KeyboardInterrupt:
        pass
    finally:
        db.close()


if __name__ == "__main__":
    main()
