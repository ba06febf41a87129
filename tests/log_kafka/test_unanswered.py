"""A write that the broker refused, or never answered, is never acknowledged; brokers that stand still and go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from session_ledger.domain.errors import AppendFailed, LogUnavailable, NotOwner, OutcomeUnknown
from session_ledger.ledger.log import kafka_partition, kafka_producer
from tests.broker.broker import Broker
from tests.log.conformance import ROOT, assert_whole_batches, batch, everything, writer_of
from tests.log_kafka.support import KafkaStorage, Load, assert_history

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("unanswered")]

TAKEN_S = 15.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker to pause and to reconfigure; each test leaves it running."""
    broker = Broker(tmp_path_factory.mktemp("unanswered") / "broker")
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


@pytest.fixture
def storage(broker: Broker) -> Iterator[KafkaStorage]:
    """A ledger of its own on it."""
    storage = KafkaStorage(broker.bootstrap, partitions=1)
    yield storage
    storage.close_all()


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of two seconds."""
    monkeypatch.setattr(kafka_producer, "REQUEST_TIMEOUT_MS", 1_000)
    monkeypatch.setattr(kafka_producer, "DELIVERY_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_producer, "COMMIT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_partition, "STABLE_TIMEOUT_S", 2.0)


def configure(storage: KafkaStorage, **configs: str) -> None:
    """Change the configuration of the ledger's topic behind its back."""
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    named = {name.replace("_", "."): value for name, value in configs.items()}
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{storage.name}.events", configs=named)])
    finally:
        admin.close()


def test_a_write_that_the_broker_refuses_is_not_acknowledged(
    storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of several appends that the broker answers with an error is AppendFailed, and none of them stands."""
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.2)
    configure(storage, max_message_bytes="2000")
    deadline_s = time.monotonic() + TAKEN_S
    for _ in range(3):
        large = [record._replace(value=os.urandom(3000)) for record in batch(3, 2)]
        while True:
            with pytest.raises(AppendFailed) as refused:
                partition.append(large)
            assert time.monotonic() < deadline_s
            if "MessageSizeTooLarge" in str(refused.value) or "RecordListTooLarge" in str(refused.value):
                break
            time.sleep(0.2)  # the producer of the refusal before is replaced in a moment
    configure(storage, max_message_bytes="4194304")
    load = Load(partition)
    load.until(3)
    load.stop()
    records = everything(partition)
    assert_whole_batches(records)
    assert 3 + 20 * len(load.acknowledged) == len(records)


@pytest.mark.usefixtures("_hasty")
def test_a_write_that_is_never_answered_is_not_acknowledged(storage: KafkaStorage, broker: Broker) -> None:
    """While the broker stands still every append ends in time without an acknowledgement, and stands nowhere."""
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    broker.pause()
    try:
        started_s = time.monotonic()
        with pytest.raises(AppendFailed):
            partition.append(batch(3, 2, by="lost"))
        with pytest.raises(AppendFailed):
            partition.append(batch(3, 2, by="lost"))
        assert time.monotonic() - started_s < TAKEN_S
    finally:
        broker.resume()
    load = Load(partition)
    load.until(3)
    load.stop()
    records = everything(partition)
    assert_whole_batches(records)
    assert {"test"} == {writer_of(record) for record in records}


@pytest.mark.usefixtures("_hasty")
def test_a_broker_that_stands_still_under_load(storage: KafkaStorage, broker: Broker) -> None:
    """Shorter than the time-outs nobody notices; longer, what was in doubt is settled and the owner goes on."""
    partition = storage.open().partitions[0]
    load = Load(partition)
    load.until(20)
    for pause_s in (0.5, 5.0):
        broker.pause()
        try:
            time.sleep(pause_s)
        finally:
            broker.resume()
        load.until(20)
        assert pause_s > 1 or [] == load.outcomes
    load.stop()
    assert load.outcomes
    assert_history(partition, load.acknowledged)


@pytest.mark.parametrize("take_over", [True, False])
def test_an_owner_killed_between_write_and_commit(storage: KafkaStorage, take_over: bool) -> None:
    """Its open transaction hides nothing for long: the next owner opens in bounded time, and nothing of it stands."""
    command = [sys.executable, "-c", KILLED_BEFORE_THE_COMMIT, *storage.opener()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert -signal.SIGKILL == done.returncode, done.stderr
    reader = storage.open(write=False).partitions[0]
    assert {"first"} == {writer_of(record) for record in everything(reader)}
    assert reader.undecided() >= 3
    started_s = time.monotonic()
    partition = (storage.open(take_over=True) if take_over else storage.open_after_kill()).partitions[0]
    assert time.monotonic() - started_s < TAKEN_S
    assert 2 == partition.end()
    partition.append(batch(2, 2, by="next"))
    records = everything(partition)
    assert_whole_batches(records)
    assert ["first", "first", "next", "next"] == [writer_of(record) for record in records]
    assert 0 == reader.undecided()


KILLED_BEFORE_THE_COMMIT = """
import os, signal, sys
from tests.log.conformance import batch
from tests.log_kafka import support
partition = support.open_kafka(sys.argv[2]).partitions[0]
partition.append(batch(0, 2, by="first"))
partition._producer.commit = lambda: os.kill(os.getpid(), signal.SIGKILL)
partition.append(batch(2, 3, by="lost"))
"""


def test_a_topic_that_is_deleted_under_its_owner(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends fail in bounded time and name the topic's error; nothing is acknowledged, nothing is made anew."""
    monkeypatch.setattr(kafka_producer, "DELIVERY_TIMEOUT_S", 3.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    admin.delete_topics([f"{storage.name}.events"])
    started_s = time.monotonic()
    for _ in range(2):
        with pytest.raises((AppendFailed, OutcomeUnknown), match=r"events|Topic"):
            partition.append(batch(3, 1))
    time.sleep(partition.proof_age_s)
    with pytest.raises(LogUnavailable):
        partition.prove_ownership()
    assert time.monotonic() - started_s < 2 * TAKEN_S
    assert f"{storage.name}.events" not in admin.list_topics()
    admin.close()


def test_a_topic_that_is_made_again_under_its_owner(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner notices before anything is committed that its records are gone, says so, and never writes again."""
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.2)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    name = f"{storage.name}.events"
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    admin.delete_topics([name])
    deadline_s = time.monotonic() + TAKEN_S
    while name in admin.list_topics():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    kept = {"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "4194304"}
    admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": kept}})
    admin.close()
    told: Exception | None = None
    while not isinstance(told, NotOwner):
        assert time.monotonic() < deadline_s, told
        with pytest.raises((AppendFailed, NotOwner)) as refused:
            partition.append(batch(3, 1))
        told = refused.value
    assert "deleted and made again" in str(told)
    with pytest.raises(NotOwner, match="deleted and made again"):
        partition.append(batch(3, 1))
    storage.close_all()
    assert [] == everything(storage.open(write=False).partitions[0])


@pytest.mark.parametrize(
    ("step", "stands"), [("send", False), ("commit", True), ("await_stable", True), ("abort", None)]
)
def test_an_interrupt_in_the_middle_of_an_append(
    storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch, step: str, stands: bool | None
) -> None:
    """Whatever step it falls behind, the producer is used no more; what it left is settled before the next write."""
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    real = getattr(kafka_producer.Producer, step)

    def interrupted(*arguments: object) -> None:
        monkeypatch.setattr(kafka_producer.Producer, step, real)
        real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(kafka_producer.Producer, step, interrupted)
    lost = batch(3, 2, by="lost")
    monkeypatch.setattr(kafka_partition, "PROOF_AGE_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        partition.prove_ownership() if stands is None else partition.append(lost)
    assert bool(stands) == partition.settle(lost[0].batch_id, 4)
    partition.append(batch(partition.end(), 2, by="next"))
    records = everything(storage.open(write=False).partitions[0])
    assert_whole_batches(records)
    assert [1, 2, 3, *([4, 5] if stands else []), *range(partition.end() - 1, partition.end() + 1)] == [
        record.position for record in records
    ]


def test_a_commit_that_took_long_is_looked_for(storage: KafkaStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable says that the transaction ended, not how: a next owner may have aborted it, if there was time."""
    assert kafka_partition.KNOWN_S < kafka_partition.HANGING_S
    partition = storage.open().partitions[0]
    monkeypatch.setattr(kafka_partition, "KNOWN_S", 0.0)
    monkeypatch.setattr(kafka_partition, "REVIVE_EVERY_S", 0.0)
    records = batch(0, 3)
    with pytest.raises(OutcomeUnknown, match="another owner may have undone it"):
        partition.append(records)
    assert partition.settle(records[0].batch_id, 1)
    monkeypatch.undo()
    partition.append(batch(3, 1))
    assert 4 == len(everything(partition))
