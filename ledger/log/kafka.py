"""The log on Kafka: topics ``NAME.events`` and ``NAME.control``, one transactional producer a partition, one owner.

The owner is the member of the group ``NAME.owner``; what makes that safe is fencing and the barrier of each partition.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from session_ledger.domain.errors import LogCorrupt, LogUnavailable
from session_ledger.ledger.log.kafka_client import Cluster
from session_ledger.ledger.log.kafka_lease import OwnerLease
from session_ledger.ledger.log.kafka_partition import KafkaPartition
from session_ledger.ledger.log.kafka_reader import PartitionReader
from session_ledger.ledger.log.kafka_records import CONTROL, RecordCodec, meta
from session_ledger.ledger.log.kafka_topics import (
    Topics,
    control_topic,
    durability,
    ensure_topics,
    events_topic,
    has_broker_clock,
)
from session_ledger.ledger.log.kafka_types import BrokerAway, ClientOptions
from session_ledger.ledger.log.port import Log

TAKEN_AT_ONCE = 8  # partitions whose producers and barriers are made at the same time


class KafkaLog(Log):
    """A ledger's log on Kafka. Open it with `KafkaLog.open`."""

    partitions: tuple[KafkaPartition, ...]
    control: KafkaPartition

    def __init__(
        self, options: ClientOptions, cluster: Cluster, name: str, topics: Topics, lease: OwnerLease | None
    ) -> None:
        self._cluster, self._lease = cluster, lease
        self.url = f"kafka://{options.bootstrap}/{name}?partitions={topics.events.partitions}"
        self.name, self.log_id = name, topics.events.topic_id
        self.durability = durability(topics)
        self._readers: list[PartitionReader] = []

        def partition(number: int) -> KafkaPartition:
            topic, facts = (control_topic(name), topics.control) if number < 0 else (events_topic(name), topics.events)
            codec = RecordCodec(name, number)
            reader = PartitionReader(options, cluster, topic, max(number, 0), codec)
            self._readers.append(reader)
            return KafkaPartition(options, name, number, topic, codec, reader, lease, has_broker_clock(facts))

        self.control = partition(CONTROL)
        self.partitions = tuple(partition(number) for number in range(topics.events.partitions))

    @classmethod
    def open(
        cls,
        bootstrap: str,
        name: str,
        *,
        partitions: int = 8,
        replication_factor: int | None = None,
        write: bool,
        take_over: bool = False,
        left: Sequence[Path] = (),
        compression: str | None = None,
        **security: str | int | float | bool,
    ) -> KafkaLog:
        """Open the log, as its owner if `write`, else for reading beside whoever owns it.

        `bootstrap`: ``HOST:PORT[,HOST:PORT]``. `partitions`: a power of two; must agree with the topic's.
        `replication_factor` of topics that are made now; None: 3 where there are three brokers, else 1. `take_over`
        puts out the owner of now: its appends and proofs raise NotOwner from then on. `left`: local files that only
        come with a log, so that no topic is made beside them. `compression`: "lz4", "gzip", "none"; None: lz4.
        `security`: kafka-python's `security_protocol`, `ssl_*` and `sasl_*`.

        Raises NotOwner (another process owns it; names it), LogUnavailable, LogCorrupt, LogTooNew, Misconfigured.
        """
        client_id = f"session-ledger-{socket.gethostname()}-{os.getpid()}"
        options = ClientOptions(bootstrap, client_id, compression, security)
        try:
            cluster = Cluster(options)
            try:
                topics = ensure_topics(cluster, name, partitions, replication_factor, write, left)
                if take_over:  # nobody is put out for a process that can not read the log
                    looking = cls(options, cluster, name, topics, None)
                    try:
                        looking._start()
                    finally:
                        looking._close_partitions()
                lease = OwnerLease.acquire(cluster, name, take_over) if write else None
                try:
                    log = cls(options, cluster, name, topics, lease)
                    log._start()
                except BaseException:
                    if lease is not None:
                        lease.release()
                    raise
            except BaseException:
                cluster.close()
                raise
        except BrokerAway as error:
            raise LogUnavailable(
                f"Kafka at {bootstrap} can not be used: {error}; see that a broker answers there and that this address "
                "and its advertised one are right"
            ) from error
        return log

    def _start(self) -> None:
        """Take every partition, control first, and see that the format is one that this version reads."""
        try:
            if self._lease is None:
                self._readers[0].is_blank()
                return
            self.control.take()
            with ThreadPoolExecutor(TAKEN_AT_ONCE, "session-ledger-take") as pool:
                list(pool.map(KafkaPartition.take, self.partitions))
            if self._readers[0].is_blank():
                self._state_format()
        except BaseException:
            self._close_partitions()
            raise

    def _state_format(self) -> None:
        """The first record of a new ledger: the format in which everything is written."""
        written = [p.partition for p in self.partitions if p.end()]
        if written:
            raise LogCorrupt(
                f"{control_topic(self.name)} is empty although partitions {written} hold events: it was removed or "
                "made again; restore it"
            )
        self.control.write_meta(meta(self.name, len(self.partitions)))

    def _close_partitions(self) -> None:
        for partition in (*self.partitions, self.control):
            partition.close()

    def close(self) -> None:
        """Close every partition and give up ownership. Idempotent."""
        self._close_partitions()
        if self._lease is not None:
            self._lease.release()
        self._cluster.close()
