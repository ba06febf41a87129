"""What stands in the topics: the wire form, and how the log sees what can not be what the ledger wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from session_ledger.domain.errors import LogCorrupt, LogTooNew, LogUnavailable, Misconfigured
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log import kafka_topics
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.kafka_batch import headers
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_records import FORMAT, META, RecordCodec
from session_ledger.ledger.log.kafka_types import ClientOptions, Message
from session_ledger.ledger.log.port import Record
from tests.log.conformance import assert_whole_batches, batch, everything, stored
from tests.log_kafka.support import KafkaStorage, delete_topics, topics_of

pytestmark = pytest.mark.kafka


@pytest.fixture
def storage(kafka: str) -> Iterator[KafkaStorage]:
    """A ledger of its own on the run's broker."""
    storage = KafkaStorage(kafka, partitions=1)
    yield storage
    storage.close_all()


def write(storage: KafkaStorage, messages: list[Message], topic: str = "events") -> None:
    """Commit records to the ledger's topic behind its back."""
    options = ClientOptions(storage.bootstrap, "test")
    producer = Producer(options, f"{storage.name}-foreign", f"{storage.name}.{topic}", 0)
    producer.send(messages)
    producer.commit()
    producer.close()


def message(storage: KafkaStorage, record: Record) -> Message:
    """The record as the ledger would write it."""
    return RecordCodec(storage.name, 0).encode(record)


def test_the_wire_form_of_a_record(storage: KafkaStorage) -> None:
    """Key, value and exactly the documented headers, in any client's eyes; a reader gets the key back."""
    partition = storage.open().partitions[0]
    (record,) = batch(0, 1)
    partition.append([record])
    at = TopicPartition(f"{storage.name}.events", 0)
    consumer = KafkaConsumer(
        bootstrap_servers=storage.bootstrap, isolation_level="read_committed", enable_auto_commit=False
    )
    consumer.assign([at])
    consumer.seek(at, 0)
    (found,) = consumer.poll(10_000)[at]
    consumer.close()
    assert (b"t/u", record.value) == (found.key, found.value)
    assert {
        "ce_specversion": b"1.0",
        "ce_id": f"{format_id(record.originator_id)}/{record.version}".encode(),
        "ce_type": record.topic.encode(),
        "ce_source": f"/{storage.name}/0".encode(),
        "ce_sequence": b"00000000000000000001",
        "content-type": b"application/avro",
        "sl_batch": record.batch_id,
    } == dict(found.headers)
    assert [record] == partition.read(0, 1)


@pytest.mark.parametrize(
    ("position", "says"), [(5, "position 5 .* where 4 must stand: records are missing"), (3, "3 .* repeated")]
)
def test_a_gap_or_a_repeat_is_corruption(storage: KafkaStorage, position: int, says: str) -> None:
    """A reader that meets a position that does not follow says which one, and at which offset."""
    storage.open().partitions[0].append(batch(0, 3))
    write(storage, [message(storage, batch(position - 1, 1)[0])])
    reader = storage.open(write=False).partitions[0]
    with pytest.raises(LogCorrupt, match=says):
        reader.read(0, 10)


def test_a_record_that_is_not_the_ledgers(storage: KafkaStorage) -> None:
    """A record without the headers is corruption, named by partition and offset."""
    storage.open().partitions[0].append(batch(0, 1))
    write(storage, [(b"key", b"value", headers([("other", b"header")]))])
    with pytest.raises(LogCorrupt, match="partition 0, offset 4: not a record of this ledger"):
        storage.open(write=False).partitions[0].read(0, 10)


@pytest.mark.parametrize("topic", ["control", "events"])
def test_a_log_in_a_newer_format(storage: KafkaStorage, topic: str) -> None:
    """A statement of a newer format, wherever it stands, ends reading with LogTooNew and says what to do."""
    log = storage.open()
    log.control.append(batch(0, 1))
    log.partitions[0].append(batch(0, 1))
    log.close()
    write(storage, [(None, b"{}", headers([(META, str(FORMAT + 1).encode())]))], topic)
    with pytest.raises(LogTooNew, match="update session-ledger"):
        storage.open()
    reader = storage.open(write=False)
    with pytest.raises(LogTooNew):
        (reader.control if topic == "control" else reader.partitions[0]).read(0, 10)


def test_removed_records_are_a_named_hole(storage: KafkaStorage) -> None:
    """Retention or truncation is never skipped: the error names the offset and the positions that are gone."""
    partition = storage.open().partitions[0]
    for end in (0, 10, 20):
        partition.append(batch(end, 10))
    partition.append(batch(30, 300))
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    admin.delete_records({TopicPartition(f"{storage.name}.events", 0): 15})
    admin.close()
    gone = r"begins at offset 15: positions 1 to 12 are gone"
    with pytest.raises(LogCorrupt, match=gone):
        storage.open(write=False).partitions[0].read(0, 10)
    storage.close_all()
    with pytest.raises(LogCorrupt, match=gone):
        storage.open()


def test_the_number_of_partitions_never_changes(storage: KafkaStorage) -> None:
    """Opening with another number is refused with both numbers; so is a number that is no power of two."""
    storage.open().close()
    with pytest.raises(Misconfigured, match="has 1 partitions and the ledger is opened with 4"):
        KafkaLog.open(storage.bootstrap, storage.name, partitions=4, write=False)
    with pytest.raises(Misconfigured, match="power of two"):
        KafkaLog.open(storage.bootstrap, storage.name, partitions=3, write=False)


def test_a_replication_factor_that_the_topic_has_not(storage: KafkaStorage) -> None:
    """A URL that names another than the topic's is refused with both; the topic's own, or none, is taken."""
    storage.open().close()
    with pytest.raises(Misconfigured, match=r"events has replication factor 1 and .* replication=3: say 1"):
        KafkaLog.open(storage.bootstrap, storage.name, partitions=1, replication_factor=3, write=False)
    KafkaLog.open(storage.bootstrap, storage.name, partitions=1, replication_factor=1, write=False).close()


def test_a_topic_that_forgets_is_refused(storage: KafkaStorage, kafka: str) -> None:
    """A topic with retention, or one that takes small messages only, is refused with what to set."""
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    kept = {"retention.ms": "-1", "retention.bytes": "-1"}
    for configs, says in (
        ({"retention.ms": "1000"}, "retention.ms=1000, which removes records"),
        ({**kept, "cleanup.policy": "compact"}, "cleanup.policy=compact, which removes records: set it to delete"),
        ({**kept, "retention.bytes": "1000"}, "retention.bytes=1000, which removes records: set it to -1"),
        ({**kept, "max.message.bytes": "1048588"}, "max.message.bytes=1048588: set it to 4194304"),
    ):
        storage = KafkaStorage(kafka, partitions=1)
        admin.create_topics({f"{storage.name}.events": {"num_partitions": 1, "configs": configs}})
        with pytest.raises(Misconfigured, match=says):
            storage.open()
    admin.close()


def test_a_ledger_that_is_not_there(storage: KafkaStorage) -> None:
    """Reading a ledger that nobody has made names the topic and makes nothing."""
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=f"no topic {storage.name}.events"):
            storage.open(write=False)


def test_a_wrong_client_option(kafka: str) -> None:
    """An option that the client does not know is a configuration error."""
    with pytest.raises(Misconfigured, match="no_such_option"):
        KafkaLog.open(kafka, "any", write=False, no_such_option=True)


def test_a_log_made_again_has_another_id(storage: KafkaStorage) -> None:
    """What was built from a ledger whose topics were removed and made again is not taken for the new one's."""
    log = storage.open()
    log.close()
    delete_topics(storage.bootstrap, f"{storage.name}.events", f"{storage.name}.control")
    again = storage.open()
    assert again.log_id != log.log_id
    assert again.partitions[0].end() == 0


def test_a_lost_control_topic_is_noticed(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events without a control log, or with an empty one, are corruption, not a new ledger; none is made."""
    monkeypatch.setattr(kafka_topics, "LOST_AFTER_S", 0.2)
    log = storage.open()
    log.partitions[0].append(batch(0, 1))
    log.close()
    delete_topics(storage.bootstrap, f"{storage.name}.control")
    for write in (True, False):
        with pytest.raises(LogCorrupt, match=r"there is no topic .*\.control, and .*\.events holds what was written"):
            storage.open(write=write)
    assert ["events"] == topics_of(storage.bootstrap, storage.name)
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    kept = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "4194304"}
    wanted = {"num_partitions": 1, "replication_factor": 1, "configs": kept}
    admin.create_topics({f"{storage.name}.control": wanted}, wait_for_metadata=True)
    admin.close()
    with pytest.raises(LogCorrupt, match=r"control is empty although partitions \[0\]"):
        storage.open()


def test_the_durability_and_the_clock_of_one_broker(storage: KafkaStorage) -> None:
    """One broker promises little and says so; its clock comes with every append."""
    log = storage.open()
    assert "replication factor 1, min.insync.replicas 1" in log.durability
    partition = log.partitions[0]
    partition.append(batch(0, 1))
    clock_us = partition.clock_us()
    assert clock_us is not None
    assert abs(clock_us - time.time_ns() // 1000) < 5_000_000
    assert storage.open(write=False).partitions[0].clock_us() is None


def test_any_place_in_a_long_log(storage: KafkaStorage) -> None:
    """Reading far inside finds the place without reading what stands before, and follows on from there."""
    partition = storage.open().partitions[0]
    written: list[Record] = []
    for _ in range(16):
        records = batch(len(written), 750)
        partition.append(records)
        written += stored(records)
    reader = storage.open(write=False).partitions[0]
    assert reader.end() == 12_000
    for after in (11_990, 6_000, 1, 9_499, 0, 11_999, 12_000, 13_000):
        assert written[after : after + 20] == stored(reader.read(after, 20)), after
    assert_whole_batches(everything(reader))
    pages = [reader.read(after, 700) for after in range(0, 12_000, 700)]
    assert all(a[-1].position + 1 == b[0].position for a, b in pairwise(pages))


def test_a_name_that_is_no_topic(kafka: str) -> None:
    """A ledger's name is made of what Kafka allows in a topic's."""
    for name in ("", "a/b", "\u00e4", "x" * 201):
        with pytest.raises(Misconfigured, match="can not name a ledger"):
            KafkaLog.open(kafka, name, write=False)
