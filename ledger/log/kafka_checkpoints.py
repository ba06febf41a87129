"""A ledger's signed checkpoints on Kafka: the topic ``NAME.checkpoints``, one record a checkpoint, keyed by partition.

The one who appends is the member of the group ``NAME.checkpointer``; a transactional producer fences whoever was it
before, so that no checkpoint is appended by a process that only believes it is.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

from session_ledger.domain.errors import LogCorrupt, LogUnavailable, NotOwner, ProjectionInUse
from session_ledger.ledger.checkpoints import CheckpointLog, Kept
from session_ledger.ledger.log.kafka_batch import headers
from session_ledger.ledger.log.kafka_client import Cluster, Reader
from session_ledger.ledger.log.kafka_lease import OwnerLease
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_topics import checkpoints_topic, ensure_checkpoints_topic
from session_ledger.ledger.log.kafka_types import BrokerAway, ClientOptions, OffsetGone, ProducerFailed

CONTENT_TYPE = headers([("content-type", b"text/plain; charset=utf-8")])
READ_TIMEOUT_S = 30.0  # without anything that comes; how long all takes grows with the topic (docs/proofs.md)
BACK_OFFSETS, BACK_GROWS = 1000, 8  # back from the end for the newest: one answer of a broker, then ever more
STABLE_TIMEOUT_S = 10.0
ROLE = "checkpointer"


class KafkaCheckpoints(CheckpointLog):
    """The topic, open. Not thread-safe."""

    def __init__(self, options: ClientOptions, cluster: Cluster, ledger: str, lease: OwnerLease | None) -> None:
        self._options, self._cluster, self._ledger, self._lease = options, cluster, ledger, lease
        self._topic = checkpoints_topic(ledger)
        self._producer: Producer | None = None

    @classmethod
    def open(
        cls,
        bootstrap: str,
        ledger: str,
        *,
        replication_factor: int | None,
        write: bool,
        compression: str | None,
        security: Mapping[str, str | int | float | bool],
    ) -> KafkaCheckpoints:
        """Open the topic; `write`: as the only process that appends, the topic made where it is missing.

        Raises ProjectionInUse (another process appends; names it), LogUnavailable, Misconfigured.
        """
        client_id = f"session-ledger-{socket.gethostname()}-{os.getpid()}"
        options = ClientOptions(bootstrap, client_id, compression, security)
        try:
            cluster = Cluster(options)
            try:
                if not write:
                    return cls(options, cluster, ledger, None)
                lease = _lease(cluster, ledger)
                try:
                    ensure_checkpoints_topic(cluster, ledger, replication_factor)
                    opened = cls(options, cluster, ledger, lease)
                    opened._producing()  # fences a predecessor before anything is read
                except BaseException:
                    lease.release()
                    raise
                return opened
            except BaseException:
                cluster.close()
                raise
        except BrokerAway as error:
            raise LogUnavailable(f"the checkpoints of {ledger} can not be used: {error}") from error

    def append(self, kept: Kept) -> None:
        """See the port."""
        if self._lease is None:
            raise NotOwner(f"the checkpoints of {self._ledger} are open for reading only")
        self._lease.check()
        try:
            producer = self._producing()
            sent = producer.send([(str(kept.partition).encode(), kept.note.encode(), CONTENT_TYPE)])
            producer.commit()
            producer.await_stable(sent.last_offset, STABLE_TIMEOUT_S)
        except (BrokerAway, ProducerFailed) as error:
            self._discard()  # of no use any more, whatever it was
            if isinstance(error, ProducerFailed) and error.fenced:
                self._lease.confirm()  # one's own transaction that timed out is fenced as well
            raise self._unavailable(error) from error

    def _producing(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._options, f"{self._ledger}-{ROLE}", self._topic, 0)
        return self._producer

    def _discard(self) -> None:
        if self._producer is not None:
            self._producer.discard()
            self._producer = None

    def _unavailable(self, error: Exception) -> LogUnavailable:
        return LogUnavailable(f"the checkpoints {self._topic} can not be used: {error}; see that a broker answers")

    def read(self) -> list[Kept]:
        """See the port. Raises LogCorrupt where the topic's beginning was removed."""
        with self._readable() as end:
            return self._read(0, end)

    def newest(self, partition: int) -> str | None:
        """See the port. Reads from the end backwards, until it has one. Raises LogCorrupt, as `read`."""
        with self._readable() as end:
            back = BACK_OFFSETS
            while end:
                start = max(end - back, 0)
                for kept in reversed(self._read(start, end)):
                    if kept.partition == partition:
                        return kept.note
                end, back = start, back * BACK_GROWS
        return None

    @contextmanager
    def _readable(self) -> Iterator[int]:
        """Where the topic ends; 0 where nothing is signed yet."""
        try:
            if self._cluster.topic(self._topic) is None:
                yield 0
                return
            if self._cluster.beginning(self._topic, 0) > 0:
                raise OffsetGone("records were removed")
            yield self._cluster.stable_end(self._topic, 0)
        except OffsetGone as error:
            raise LogCorrupt(f"the topic {self._topic} does not begin where it began: {error}") from error
        except BrokerAway as error:
            raise self._unavailable(error) from error

    def _read(self, start: int, end: int) -> list[Kept]:
        if start >= end:
            return []
        found: list[Kept] = []
        reader = Reader(self._options, self._topic, 0)
        try:
            reader.seek(start)
            for fetched in chain.from_iterable(reader.until(end, READ_TIMEOUT_S)):
                if fetched.offset >= end:
                    break
                try:
                    kept = Kept(int(fetched.key or b""), (fetched.value or b"").decode())
                except ValueError as error:
                    raise LogCorrupt(f"{self._topic}, offset {fetched.offset}: no checkpoint ({error})") from error
                found.append(kept)
        finally:
            reader.close()
        return found

    def close(self) -> None:
        """See the port."""
        self._discard()
        if self._lease is not None:
            self._lease.release()
            self._lease = None
        self._cluster.close()


def _lease(cluster: Cluster, ledger: str) -> OwnerLease:
    try:
        return OwnerLease.acquire(cluster, ledger, take_over=False, role=ROLE)
    except NotOwner as error:
        raise ProjectionInUse(str(error)) from error
