"""Replication 3, min ISR 2: the loss of one broker stops nobody, of two everybody; nothing acknowledged is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.protocol.metadata import FindCoordinatorRequest

from session_ledger.domain.errors import AppendFailed, LogUnavailable, Misconfigured, NotOwner, OutcomeUnknown
from session_ledger.ledger.log import kafka_partition, kafka_producer
from session_ledger.ledger.log.kafka_client import Cluster as Client
from session_ledger.ledger.log.kafka_types import ClientOptions
from tests.broker.broker import Broker
from tests.broker.cluster import Cluster
from tests.log.conformance import assert_whole_batches, batch, everything
from tests.log_kafka.support import PATIENCE_S, KafkaStorage, Load, assert_history

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("three brokers")]

GROUP, TRANSACTION = 0, 1


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three brokers for all tests here; each test leaves them running."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def storage(cluster: Cluster) -> Iterator[KafkaStorage]:
    """A ledger of its own on them."""
    storage = KafkaStorage(cluster.bootstrap, partitions=1)
    yield storage
    storage.close_all()


def coordinator_of(cluster: Cluster, key: str, kind: int) -> Broker:
    """The broker that coordinates that group or transactional id now."""
    client = Client(ClientOptions(cluster.bootstrap, "test"))
    try:
        return cluster.brokers[client.ask(FindCoordinatorRequest(key=key, key_type=kind, max_version=3)).node_id]
    finally:
        client.close()


def followers(storage: KafkaStorage, cluster: Cluster) -> list[Broker]:
    """The two brokers that do not lead the ledger's partition now."""
    leader = cluster.leader_of(f"{storage.name}.events", 0)
    return [broker for broker in cluster.brokers.values() if broker is not leader]


def test_the_leader_and_the_coordinators_killed_under_load(storage: KafkaStorage, cluster: Cluster) -> None:
    """The owner goes on by itself each time and stays the owner; every acknowledged batch stands once."""
    log = storage.open()
    assert "survive the loss of 1 (replication factor 3, min.insync.replicas 2)" in log.durability
    partition = log.partitions[0]
    load = Load(partition)
    finders: list[Callable[[], Broker]] = [
        lambda: cluster.leader_of(f"{storage.name}.events", 0),
        lambda: coordinator_of(cluster, f"{storage.name}-0", TRANSACTION),
        lambda: coordinator_of(cluster, f"{storage.name}.owner", GROUP),
    ]
    for find in finders:
        load.until(20)
        killed = find()
        killed.kill()
        load.until(20)
        with pytest.raises(NotOwner):
            storage.open()
        killed.start()
    load.until(20)
    load.stop()
    partition.prove_ownership()
    assert_history(partition, load.acknowledged)
    assert_history(storage.open(write=False).partitions[0], load.acknowledged)


def test_a_topic_that_promises_less_than_its_replicas(storage: KafkaStorage) -> None:
    """Three replicas of which one need be in sync are refused, with what to set."""
    storage.open().close()
    admin = KafkaAdminClient(bootstrap_servers=storage.bootstrap)
    topic = ConfigResource(ConfigResourceType.TOPIC, f"{storage.name}.events", configs={"min.insync.replicas": "1"})
    admin.alter_configs([topic])
    admin.close()
    deadline_s = time.monotonic() + PATIENCE_S
    told = ""
    while not told:  # every broker learns of it in a moment
        assert time.monotonic() < deadline_s
        try:
            storage.open(write=False).close()
        except Misconfigured as error:
            told = str(error)
    assert "replication factor 3 and min.insync.replicas=1" in told
    assert "set it to 2" in told


def test_two_of_three_killed(storage: KafkaStorage, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is acknowledged below min ISR, each refusal is retriable and soon; back above it the owner goes on."""
    monkeypatch.setattr(kafka_producer, "DELIVERY_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_producer, "COMMIT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_partition, "STABLE_TIMEOUT_S", 2.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    others = followers(storage, cluster)
    for broker in others:
        broker.kill()
    started_s = time.monotonic()
    for _ in range(2):
        with pytest.raises((AppendFailed, OutcomeUnknown)) as refused:
            partition.append(batch(3, 2))
        assert refused.value.retriable
    with pytest.raises(LogUnavailable):
        partition.prove_ownership()
    assert time.monotonic() - started_s < PATIENCE_S / 2
    for broker in others:
        broker.start(wait=False)
    for broker in others:
        broker.await_ready()
    load = Load(partition)
    load.until(5)
    load.stop()
    records = everything(partition)
    assert_whole_batches(records)
    assert set(load.acknowledged) <= {record.batch_id for record in records}
    assert partition.end() == len(records)


def test_two_of_three_paused_below_min_isr(
    storage: KafkaStorage, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader with followers that stand still acknowledges nothing; what was in doubt is settled after."""
    monkeypatch.setattr(kafka_producer, "DELIVERY_TIMEOUT_S", 2.0)
    monkeypatch.setattr(kafka_producer, "COMMIT_TIMEOUT_S", 2.0)
    partition = storage.open().partitions[0]
    partition.append(batch(0, 3))
    others = followers(storage, cluster)
    for broker in others:
        broker.pause()
    try:
        with pytest.raises((AppendFailed, OutcomeUnknown)) as refused:
            partition.append(batch(3, 2))
        assert refused.value.retriable
    finally:
        for broker in others:
            broker.resume()
    load = Load(partition)
    load.until(5)
    load.stop()
    records = everything(partition)
    assert_whole_batches(records)
    assert set(load.acknowledged) <= {record.batch_id for record in records}
