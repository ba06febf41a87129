"""What goes wrong with brokers, networks and owners; after each, what was acknowledged stands once, whole and dense."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import AbortTransactionSpec

from session_ledger.domain.errors import (
    AppendFailed,
    LogUnavailable,
    NotOwner,
    OutcomeUnknown,
)
from session_ledger.ledger.log import kafka_partition, kafka_producer, kafka_reader
from session_ledger.ledger.log.kafka import KafkaLog
from session_ledger.ledger.log.kafka_client import Cluster, Group
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_records import RecordCodec, barrier
from session_ledger.ledger.log.kafka_types import MESSAGE_BYTES_MAX, ClientOptions
from tests.broker.broker import Broker
from tests.log.conformance import ROOT, assert_whole_batches, batch, everything, writer_of
from tests.log_kafka.proxy import Proxy
from tests.log_kafka.support import PATIENCE_S, KafkaStorage, Load, assert_history

pytestmark = pytest.mark.kafka


@pytest.fixture
def storage(kafka: str) -> Iterator[KafkaStorage]:
    """A ledger of its own on the run's broker."""
    storage = KafkaStorage(kafka, partitions=1)
    yield storage
    storage.close_all()


def test_a_broker_killed_and_restarted_under_load(own_broker: Broker) -> None:
    """The owner goes on by itself; every acknowledged batch stands exactly once, and no other one does."""
    storage = KafkaStorage(own_broker.bootstrap, partitions=1)
    partition = storage.open().partitions[0]
    load = Load(partition)
    for pause_s in (0.0, 1.0):
        load.until(20)
        own_broker.kill()
        time.sleep(pause_s)
        own_broker.start()
    load.until(20)
    load.stop()
    assert_history(partition, load.acknowledged)
    partition.prove_ownership()
    storage.close_all()
    assert_history(storage.open(write=False).partitions[0], load.acknowledged)
    storage.close_all()


def test_a_broker_killed_right_after_an_acknowledgement(own_broker: Broker) -> None:
    """What was acknowledged an instant before the kill is there afterwards, for this owner and for the next."""
    storage = KafkaStorage(own_broker.bootstrap, partitions=1)
    acknowledged: list[bytes] = []
    for _ in range(3):
        partition = storage.open_after_kill().partitions[0]
        assert_history(partition, acknowledged)
        records = batch(partition.end(), 1)
        partition.append(records)
        own_broker.kill()
        acknowledged.append(records[0].batch_id)
        own_broker.start()
        load = Load(partition)
        load.until(1)
        load.stop()
        acknowledged += load.acknowledged
        storage.close_all()


@pytest.mark.parametrize(("lost", "written"), [("answer", True), ("request", False)])
def test_a_lost_commit_is_settled(
    own_broker: Broker, monkeypatch: pytest.MonkeyPatch, lost: str, written: bool
) -> None:
    """When the commit's answer is lost the batch is found; when the commit itself is, it is not and never will be."""
    monkeypatch.setattr(kafka_producer, "COMMIT_TIMEOUT_S", 1.0)
    with Proxy(own_broker) as proxy:
        storage = KafkaStorage(f"127.0.0.1:{own_broker.behind_proxy_port}", partitions=1)
        partition = storage.open().partitions[0]
        partition.append(batch(0, 3))
        proxy.lose = lost
        records = batch(3, 4)
        with pytest.raises(OutcomeUnknown):
            partition.append(records)
        with pytest.raises(LogUnavailable):
            partition.settle(records[0].batch_id, 4)
        proxy.dark.clear()
        deadline_s = time.monotonic() + PATIENCE_S
        settled: bool | None = None
        while settled is None and time.monotonic() < deadline_s:
            try:
                settled = partition.settle(records[0].batch_id, 4)
            except LogUnavailable:
                time.sleep(0.2)
        assert settled is written
        end = 7 if written else 3
        assert partition.end() == end
        partition.append(batch(end, 2))
        assert_whole_batches(everything(partition))
        storage.close_all()


def test_a_stopped_owner_loses_its_place(storage: KafkaStorage) -> None:
    """An owner paused for longer than its session is followed by another; when it runs again it only gets NotOwner."""
    opener = storage.opener()
    command = [sys.executable, "-m", "tests.log.writer_process", *opener, "0.01"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGSTOP)
        started_s = time.monotonic()
        partition = storage.open_after_kill().partitions[0]
        assert time.monotonic() - started_s < 10
        records = batch(partition.end(), 5, by="next")
        partition.append(records)
        process.send_signal(signal.SIGCONT)
        rest, errors = process.communicate(timeout=PATIENCE_S)
    assert "NotOwner" in errors or "OutcomeUnknown" in errors
    acknowledged = [bytes.fromhex(line.split()[0]) for line in [*lines, *rest.splitlines()]]
    found = everything(partition)
    assert_whole_batches(found)
    assert set(acknowledged) <= {record.batch_id for record in found}
    assert writer_of(found[-1]) == "next"


def test_an_owner_without_its_membership_comes_back(storage: KafkaStorage) -> None:
    """A membership that ended while nobody else came is renewed, and the ledger is still refused to others."""
    partition = storage.open().partitions[0]
    cluster = Cluster(ClientOptions(storage.bootstrap, "test"))
    group = Group(cluster, f"{storage.name}.owner", 6000)
    group.leave([member.member_id for member in group.members()])
    deadline_s = time.monotonic() + PATIENCE_S
    while not group.members() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    cluster.close()
    with pytest.raises(NotOwner, match=r"session-ledger-.* at 127\.0\.0\.1"):
        storage.open()
    partition.append(batch(0, 1))


def test_fenced_by_a_producer_that_is_no_owner(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who still holds the lease fences back, behind a barrier, and goes on; nothing is lost or doubled."""
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.5)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 2))
    other = Producer(ClientOptions(storage.bootstrap, "test"), f"{storage.name}-0", f"{storage.name}.events", 0)
    with pytest.raises(AppendFailed):
        partition.append(batch(2, 2))
    partition.append(batch(2, 2))
    other.discard()
    assert_whole_batches(everything(partition))
    assert partition.end() == 4


def test_a_foreign_record_ends_ownership(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that was fenced and finds records of another at its end never writes again."""
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 2))
    other = Producer(ClientOptions(storage.bootstrap, "test"), f"{storage.name}-0", f"{storage.name}.events", 0)
    codec = RecordCodec(storage.name, 0)
    other.send([codec.encode(record) for record in batch(2, 1, by="other")])
    other.commit()
    with pytest.raises(AppendFailed):
        partition.append(batch(2, 2))
    for _ in range(2):
        with pytest.raises(NotOwner, match="another owner wrote"):
            partition.append(batch(2, 2))
    with pytest.raises(NotOwner):
        partition.prove_ownership()
    other.close()


def abort_as_told(bootstrap: str, message: str) -> None:
    """End the transaction that the message names, by what its command does: describe the producers, abort one."""
    told = re.search(r"kafka-transactions\.sh .* abort --topic (\S+) --partition (\d+) --start-offset (\d+)$", message)
    assert told is not None, message
    at, start = TopicPartition(told[1], int(told[2])), int(told[3])
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    producers = admin.describe_producers([at])[at].active_producers
    (hanging,) = [producer for producer in producers if producer.current_transaction_start_offset == start]
    admin.abort_transaction(AbortTransactionSpec(at, hanging.producer_id, hanging.producer_epoch))
    admin.close()


def test_a_foreign_open_transaction_is_not_passed(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged behind it, no new owner serves before it ends, and the error says how to end it."""
    log = storage.open()
    log.partitions[0].append(batch(0, 3))
    foreign = Producer(ClientOptions(storage.bootstrap, "test"), "foreign", f"{storage.name}.events", 0)
    foreign.send([barrier()])
    monkeypatch.setattr(kafka_partition, "STABLE_TIMEOUT_S", 1.0)
    with pytest.raises(OutcomeUnknown, match="not stable"):  # behind the open transaction no reader would see it
        log.partitions[0].append(batch(3, 3))
    log.close()
    monkeypatch.setattr(kafka_reader, "READ_TIMEOUT_S", 1.0)
    with pytest.raises(LogUnavailable) as refused:
        storage.open()
    abort_as_told(storage.bootstrap, str(refused.value))
    foreign.discard()
    partition = storage.open().partitions[0]
    assert partition.end() == 6
    assert_whole_batches(everything(partition))


def test_a_record_over_the_limit_is_refused_before_it_is_sent(storage: KafkaStorage) -> None:
    """A value over 4 MiB is AppendFailed, writes nothing, and the next append succeeds; 3 MiB pass."""
    partition = storage.open().partitions[0]
    large = batch(0, 1)[0]._replace(value=os.urandom(MESSAGE_BYTES_MAX))
    with pytest.raises(AppendFailed, match="does not fit"):
        partition.append([large])
    fitting = [record._replace(value=os.urandom(3 * 1024 * 1024)) for record in batch(0, 2)]
    partition.append(fitting)
    assert [record.value for record in fitting] == [record.value for record in partition.read(0, 2)]


def test_no_broker_at_the_address() -> None:
    """Opening says which address does not answer."""
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:9 .*broker answers"):
        KafkaLog.open("127.0.0.1:9", "nowhere", write=False)


def test_an_owner_whose_broker_is_away(own_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check and append fail with retriable errors in bounded time; both succeed when the broker is back."""
    storage = KafkaStorage(own_broker.bootstrap, partitions=1)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 1))
    monkeypatch.setattr(kafka_producer, "DELIVERY_TIMEOUT_S", 6.0)
    own_broker.kill()
    time.sleep(partition.proof_age_s)
    started_s = time.monotonic()
    with pytest.raises(LogUnavailable):
        partition.prove_ownership()
    with pytest.raises(AppendFailed):
        partition.append(batch(1, 1))
    assert time.monotonic() - started_s < 30
    own_broker.start()
    load = Load(partition)
    load.until(3)
    load.stop()
    partition.prove_ownership()
    assert_whole_batches(everything(partition))
    storage.close_all()
