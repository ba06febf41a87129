"""Floors on Kafka: bare kafka-python producing in transactions, and consuming, the records that the ledger wrote."""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
RETRY_BACKOFF_MS = 3  # with the default of 100 each small transaction takes 110 ms
CONSUME_TIMEOUT_S = 60

Sample = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers of a record."""


class Produced(NamedTuple):
    """Records a second, and the median milliseconds of one transaction from begin to the commit's answer."""

    rate: float
    commit_ms: float


def recorded(bootstrap: str, topic: str) -> list[Sample]:
    """Every committed record of the topic's only partition."""
    at = TopicPartition(topic, 0)
    consumer = _consumer(bootstrap, at)
    end = consumer.end_offsets([at])[at]
    found: list[Sample] = []
    while consumer.position(at) < end:
        for record in consumer.poll(1000).get(at, ()):
            found.append((record.key, record.value, list(record.headers)))
    consumer.close()
    return found


def consume(bootstrap: str, topic: str) -> float:
    """Records a second of bare consuming (read_committed) the topic's only partition from its beginning."""
    at = TopicPartition(topic, 0)
    consumer = _consumer(bootstrap, at)
    end = consumer.end_offsets([at])[at]
    consumer.poll(0)
    count = 0
    started = time.perf_counter()
    deadline_s = started + CONSUME_TIMEOUT_S
    while consumer.position(at) < end:
        count += len(consumer.poll(1000).get(at, ()))
        if time.perf_counter() > deadline_s:
            raise TimeoutError(f"{topic}: only {count} records within {CONSUME_TIMEOUT_S} s")
    rate = count / (time.perf_counter() - started)
    consumer.close()
    return rate


def produce(bootstrap: str, samples: Sequence[Sample], batch: int) -> Produced:
    """Send the records to a topic of its own, `batch` a transaction, checking each send."""
    topic = f"floor-{uuid.uuid4().hex[:12]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    configs = {"max.message.bytes": str(MESSAGE_BYTES_MAX), "message.timestamp.type": "LogAppendTime"}
    wanted = {"num_partitions": 1, "replication_factor": 1, "configs": configs}
    admin.create_topics({topic: wanted}, wait_for_metadata=True)
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=topic,
        acks="all",
        compression_type="lz4",
        retry_backoff_ms=RETRY_BACKOFF_MS,
        linger_ms=1000,  # `flush` sends: a batch that leaves before costs a request of its own
        batch_size=MESSAGE_BYTES_MAX - 64,
        max_request_size=MESSAGE_BYTES_MAX,
        metrics_enabled=False,
    )
    try:
        producer.init_transactions()
        _transaction(producer, topic, samples[:batch])  # the first one finds the leader and adds the partition
        commits = []
        started = time.perf_counter()
        for first in range(0, len(samples), batch):
            began = time.perf_counter()
            _transaction(producer, topic, samples[first : first + batch])
            commits.append((time.perf_counter() - began) * 1000)
        rate = len(samples) / (time.perf_counter() - started)
    finally:
        producer.close(timeout=5)
        admin.delete_topics([topic])
        admin.close()
    return Produced(rate, statistics.median(commits))


def _transaction(producer: KafkaProducer, topic: str, samples: Sequence[Sample]) -> None:
    producer.begin_transaction()
    futures = [producer.send(topic, value, key, headers, 0) for key, value, headers in samples]
    producer.flush()
    producer.commit_transaction()
    for future in futures:
        if not future.succeeded():
            raise future.exception


def _consumer(bootstrap: str, at: TopicPartition) -> Any:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="none",
        enable_auto_commit=False,
        max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
        max_poll_records=2000,
        metrics_enabled=False,
    )
    consumer.assign([at])
    consumer.seek(at, 0)
    return consumer
