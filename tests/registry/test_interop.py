"""Other people's readers: every record of a ledger with a registry, and of one without, equal to what was sent."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka as ck
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from session_ledger import Ledger
from session_ledger.domain.events import EVENT_BY_TOPIC, EVENT_TYPES, TOPIC_BY_EVENT, SchemaPublished
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.open import open_registry
from session_ledger.ledger.settings import Settings
from session_ledger.schemas.codec import CONFLUENT_HEADER, Codec
from session_ledger.schemas.library import Library
from session_ledger.schemas.registry import register
from tests.broker.libs import ensure_libs as broker_libs
from tests.registry.apicurio import ANSWER_S, Apicurio, ensure_libs
from tests.registry.java import find_java
from tests.registry.story import PARTITIONS, Sent, append_examples, name_of, tell, watching
from tests.schemas.golden import as_json
from tests.schemas.readers import apache_reads, as_read

READ_S = 60
JAVA_S = 120
HERE = Path(__file__).resolve().parent


class Told(NamedTuple):
    """A closed ledger and what was sent to it."""

    name: str
    kafka: str
    sent: Sent


def told(name: str, kafka: str, replica: Path, registry: str | None) -> Told:
    """A ledger in which every event type was written by commands."""
    url = f"kafka://{kafka}/{name}?partitions={PARTITIONS}&replica={replica}"
    with watching() as sent, Ledger.open(url, schema_registry=registry) as ledger:
        tell(ledger)
    assert set(EVENT_TYPES) == {type(written.event) for written in sent.values()}
    return Told(name, kafka, sent)


@pytest.fixture(scope="module")
def with_registry(kafka: str, registry: Apicurio, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A ledger that was opened with the registry."""
    return told(f"with-{time.time_ns()}", kafka, tmp_path_factory.mktemp("with"), registry.url)


@pytest.fixture(scope="module")
def without_registry(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A ledger that was opened without."""
    return told(f"without-{time.time_ns()}", kafka, tmp_path_factory.mktemp("without"), None)


@pytest.fixture(scope="module")
def full(kafka: str, registry: Apicurio) -> Told:
    """A log with one event of every type that has a value in every field, in the registry's form."""
    name = f"full-{time.time_ns()}"
    port, close = open_registry(Settings(schema_registry=registry.url))
    assert port is not None
    codec = Codec(Library(), port, ids=register(Library(), port))
    log = KafkaLog.open(kafka, name, partitions=1, write=True)
    try:
        with watching() as sent:
            append_examples(log.partitions[0], codec)
    finally:
        log.close()
        close()
    assert set(EVENT_TYPES) == {type(written.event) for written in sent.values()}
    return Told(name, kafka, sent)


def records_of(told: Told) -> Iterator[ck.Message]:
    """Every event of a ledger's topics as librdkafka reads it, committed ones alone."""
    options: dict[str, Any] = {
        "bootstrap.servers": told.kafka,
        "group.id": "not used",
        "isolation.level": "read_committed",
    }
    options |= {"auto.offset.reset": "error", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = ck.Consumer(options)
    try:
        topics = consumer.list_topics(timeout=READ_S).topics
        left = {
            (topic, number)
            for topic in (f"{told.name}.control", f"{told.name}.events")
            for number in topics[topic].partitions
        }
        consumer.assign([ck.TopicPartition(topic, number, ck.OFFSET_BEGINNING) for topic, number in left])
        deadline = time.monotonic() + READ_S
        while left:
            assert time.monotonic() < deadline, f"the end of {left} was not reached"
            message = consumer.poll(1.0)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                assert error.code() == ck.KafkaError._PARTITION_EOF, error
                left.discard((message.topic(), message.partition()))
            elif "sl_meta" not in headers(message):
                yield message
    finally:
        consumer.close()


def headers(message: ck.Message) -> dict[str, bytes]:
    """A record's headers."""
    found: Any = message.headers()
    return dict(found or [])


def name_of_record(message: ck.Message) -> str:
    """What the record is called in `Sent`."""
    found = headers(message)
    return f"{found['ce_type'].decode()} {found['ce_id'].decode()}"


def client_of(registry: Apicurio) -> SchemaRegistryClient:
    """Confluent's client; without a time limit of its own it would wait for ever where Apicurio does not answer."""
    return SchemaRegistryClient({"url": registry.url, "timeout": ANSWER_S})


LEDGERS = pytest.mark.parametrize("ledger", ["with_registry", "full"])


@LEDGERS
def test_confluents_deserializer_reads_every_record(
    ledger: str, registry: Apicurio, request: pytest.FixtureRequest
) -> None:
    """`AvroDeserializer` with the registry and the naming of subjects: each field of each record as it was sent."""
    told: Told = request.getfixturevalue(ledger)
    deserialize = AvroDeserializer(client_of(registry), conf={"subject.name.strategy": record_subject_name_strategy})
    found: dict[str, Any] = {}
    for message in records_of(told):
        name = name_of_record(message)
        assert name not in found, f"{name} stands in the log twice"
        found[name] = deserialize(message.value(), SerializationContext(message.topic() or "", MessageField.VALUE))
    assert {name: as_read(written.event) for name, written in told.sent.items()} == found


@LEDGERS
def test_apaches_reader_reads_every_record(ledger: str, registry: Apicurio, request: pytest.FixtureRequest) -> None:
    """Apache's `avro` with the text that the registry gives for the id in the record."""
    told: Told = request.getfixturevalue(ledger)
    client = client_of(registry)
    found: dict[str, Any] = {}
    for message in records_of(told):
        value = message.value() or b""
        assert 0 == value[0]
        text = client.get_schema(int.from_bytes(value[1:CONFLUENT_HEADER], "big")).schema_str
        assert text is not None
        found[name_of_record(message)] = apache_reads(text, value[CONFLUENT_HEADER:])
    assert {name: as_read(written.event) for name, written in told.sent.items()} == found


def test_a_record_in_the_log_holds_the_bytes_that_were_encoded(with_registry: Told) -> None:
    """Nothing stands between the codec and the record's value."""
    found = {name_of_record(message): message.value() for message in records_of(with_registry)}
    assert {name: written.value for name, written in with_registry.sent.items()} == found


def test_the_subject_is_the_name_of_the_record(with_registry: Told, registry: Apicurio) -> None:
    """RecordNameStrategy: one subject an event type, whatever the topic; and the schema is ours, field for field."""
    client = client_of(registry)
    ours = {schema.topic: schema for schema in Library()}
    assert set(ours) == set(client.get_subjects()) & set(ours)
    for topic, schema in ours.items():
        text = client.get_latest_version(topic).schema.schema_str
        assert text is not None
        assert schema.parsed() == json.loads(text)


def java_lines(told: Told) -> list[dict[str, Any]]:
    """What the Java consumer prints, line by line."""
    published = HERE.parents[1] / "schemas" / "v1" / f"{SchemaPublished.__name__}.avsc"
    classes = f"{broker_libs()}/*:{ensure_libs()}/*"
    command = [str(find_java()), "-Xmx256m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classes]
    command += [str(HERE / "ReadSingleObject.java"), told.kafka, told.name, str(published)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=JAVA_S, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def plain(value: object) -> Any:
    """The JSON that the Java consumer makes of a value."""
    if isinstance(value, Decimal):
        return f"{value:.6f}"
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return as_json(value)


def test_java_reads_the_single_object_form(without_registry: Told) -> None:
    """Kafka's and Avro's Java libraries, read_committed, schemas learned from the control log: as it was sent."""
    lines = java_lines(without_registry)
    expected = sorted((name_of(written.event), plain(written.event)) for written in without_registry.sent.values())
    found = []
    positions: dict[tuple[str, int], list[int]] = {}
    for line in lines:
        value, event_type = line["value"], EVENT_BY_TOPIC[line["type"]]
        positions.setdefault((line["topic"], line["partition"]), []).append(line["position"])
        assert TOPIC_BY_EVENT[event_type] == line["type"]
        found.append((line["type"], value["event_id"], value))
    assert sorted((name.split(" ")[0], value["event_id"]) for name, value in expected) == sorted(
        (kind, event_id) for kind, event_id, _ in found
    )
    by_id = {event_id: value for _, event_id, value in found}
    assert {value["event_id"]: value for _, value in expected} == by_id
    assert all(list(range(1, len(one) + 1)) == one for one in positions.values())
