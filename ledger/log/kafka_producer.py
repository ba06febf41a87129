"""A transactional producer of one partition that speaks Kafka's protocol over kafka-python's connections.

It does one thing at a time, in the thread that calls it: begin and write, commit or abort, wait until it is stable. So
there is no accumulator, no sender's thread and no future a record, and what the broker answered is what the caller
sees. docs/adr/0009 says why kafka-python's own producer is not used.

Where the cluster has transactions of version 2 (KIP-890: a new epoch with every transaction, partitions added by the
write itself), they are used; else version 1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kafka import OffsetSpec, TopicPartition
from kafka import errors as kafka_errors
from kafka.codec import gzip_encode, has_lz4, lz4_encode
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest
from kafka.protocol.producer import (
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    ProduceRequest,
)
from kafka.record.util import calc_crc32c

from session_ledger.domain.errors import Misconfigured
from session_ledger.ledger.log.kafka_access import (
    BOOTSTRAP_TIMEOUT_MS,
    REQUEST_TIMEOUT_MS,
    common,
    connecting,
    remedy_of,
    said,
)
from session_ledger.ledger.log.kafka_batch import Compression, ProducerState, record_batch
from session_ledger.ledger.log.kafka_client import READ_COMMITTED, offset_request
from session_ledger.ledger.log.kafka_types import (
    MESSAGE_BYTES_MAX,
    BrokerAway,
    ClientOptions,
    Message,
    ProducerFailed,
    Sent,
    message_size,
)

DELIVERY_TIMEOUT_S = 15.0  # a write, with its repeats: brokers take 9 s to miss a dead one before they elect a leader
COMMIT_TIMEOUT_S = 15.0  # an end of transaction, likewise
TRANSACTION_TIMEOUT_MS = 45_000  # longer than a delivery and a commit; a dead writer blocks readers no longer than this
INIT_TIMEOUT_S = 5.0  # a first producer waits for the markers of its predecessor
BATCH_OVERHEAD_BYTES = 1024  # of a record batch and its request, from above
SEQUENCES = 1 << 31  # sequence numbers wrap
TRANSACTION_COORDINATOR = 1
RETRY_S = 0.1  # a broker that is away, a coordinator that is loading
BUSY_RETRY_S = 0.001  # the markers of the transaction before are being written: a matter of milliseconds

TAKEN = "another process has taken the partition in between or tried to, or the transaction lasted longer than it may"
_FENCED = (
    kafka_errors.ProducerFencedError,
    kafka_errors.InvalidProducerEpochError,
)
_FORGOTTEN = (  # transactional.id.expiration.ms, producer.id.expiration.ms
    kafka_errors.InvalidProducerIdMappingError,
    kafka_errors.UnknownProducerIdError,
)


def compression_of(options: ClientOptions) -> Compression | None:
    """The codec that the options name; None: lz4, where its library is installed."""
    if options.compression == "gzip":
        return Compression(1, gzip_encode)
    if options.compression == "lz4" or (options.compression is None and has_lz4()):
        return Compression(3, lz4_encode)
    if options.compression in (None, "none"):
        return None
    raise Misconfigured(f"compression {options.compression!r} is not known: lz4, gzip or none")


class Producer:
    """One transactional producer of one partition. Not thread-safe; after ProducerFailed only `discard` is allowed."""

    def __init__(self, options: ClientOptions, transactional_id: str, topic: str, partition: int) -> None:
        """Fences every other producer of that id and waits until its transaction has ended.

        Raises BrokerAway, LogRefused, Misconfigured.
        """
        self._id, self._topic, self._partition = transactional_id, topic, partition
        self._at = TopicPartition(topic, partition)
        self._compression = compression_of(options)
        self._coordinator: int | None = None
        config = common(options) | {"allow_auto_create_topics": False}
        try:
            self._net = NetworkSelector(**config)
        except OSError as error:  # no file handle is left
            raise BrokerAway(f"a producer for {transactional_id} could not be made: {error}") from error
        self._manager: Any = KafkaConnectionManager(self._net, **config)
        try:
            with connecting(options, f"a producer for {transactional_id}"):
                self._manager.cluster.set_topics([topic])
                self._manager.bootstrap(BOOTSTRAP_TIMEOUT_MS)
                deadline_s = time.monotonic() + INIT_TIMEOUT_S
                self._version_2 = self._has_version_2(deadline_s)
                request = InitProducerIdRequest(
                    transactional_id=transactional_id, transaction_timeout_ms=TRANSACTION_TIMEOUT_MS, max_version=5
                )
                answer = self._ask(request, self._coordinator_node, _error_code, deadline_s)
                self._state = ProducerState(answer.producer_id, answer.producer_epoch, 0)
        except BaseException:
            self.discard()
            raise

    def _has_version_2(self, deadline_s: float) -> bool:
        """Whether the cluster has finalized transactions of version 2."""
        request = ApiVersionsRequest(client_software_name="session-ledger", client_software_version="1", min_version=3)
        answer = self._ask(request, self._leader_node, _error_code, deadline_s)
        levels = {feature.name: feature.max_version_level for feature in answer.finalized_features or ()}
        return bool(levels.get("transaction.version", 0) >= 2)

    # --- one transaction --------------------------------------------------------------------------------------------

    def send(self, messages: Sequence[Message]) -> Sent:
        """Begin a transaction and write the records; returns when the broker has all of them. Raises ProducerFailed."""
        with self._failing("write"):
            self._net.poll(0)  # connections that the broker closed meanwhile are seen, and made again
            deadline_s = time.monotonic() + DELIVERY_TIMEOUT_S
            if not self._version_2:
                self._add_partition(deadline_s)
            written = [self._write(chunk, deadline_s) for chunk in _chunks(messages)]
        last = written[-1]
        return Sent(written[0].first_offset, last.last_offset, last.broker_time_us)

    def _add_partition(self, deadline_s: float) -> None:
        topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic(name=self._topic, partitions=[self._partition])
        request = AddPartitionsToTxnRequest(
            v3_and_below_transactional_id=self._id,
            v3_and_below_producer_id=self._state.producer_id,
            v3_and_below_producer_epoch=self._state.epoch,
            v3_and_below_topics=[topic],
            max_version=3,  # later ones are for brokers
        )

        def error_code(answer: Any) -> int:
            code: int = answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
            return code

        self._ask(request, self._coordinator_node, error_code, deadline_s)

    def _write(self, messages: Sequence[Message], deadline_s: float) -> Sent:
        """Write one batch. A repeat carries the same sequence numbers: the broker knows it again."""
        batch = record_batch(messages, self._state, int(time.time() * 1000), self._compression, calc_crc32c)
        data = ProduceRequest.TopicProduceData
        request = ProduceRequest(
            transactional_id=self._id,
            acks=-1,
            timeout_ms=REQUEST_TIMEOUT_MS,
            topic_data=[
                data(
                    name=self._topic,
                    partition_data=[data.PartitionProduceData(index=self._partition, records=bytes(batch))],
                )
            ],
            max_version=12 if self._version_2 else 11,  # in a transaction 12 is for version 2 alone
        )

        def error_code(answer: Any) -> int:
            code: int = answer.responses[0].partition_responses[0].error_code
            return code

        answer = self._ask(request, self._leader_node, error_code, deadline_s).responses[0].partition_responses[0]
        count, (producer_id, epoch, sequence) = len(messages), self._state
        self._state = ProducerState(producer_id, epoch, (sequence + count) % SEQUENCES)
        time_ms = answer.log_append_time_ms
        return Sent(answer.base_offset, answer.base_offset + count - 1, time_ms * 1000 if time_ms >= 0 else None)

    def commit(self) -> None:
        """End the transaction. ProducerFailed leaves it unknown whether it was committed."""
        with self._failing("commit"):
            self._end(committed=True)

    def abort(self) -> None:
        """End the transaction without its records. Raises ProducerFailed."""
        with self._failing("abort"):
            self._end(committed=False)

    def _end(self, committed: bool) -> None:
        request = EndTxnRequest(
            transactional_id=self._id,
            producer_id=self._state.producer_id,
            producer_epoch=self._state.epoch,
            committed=committed,
            max_version=5 if self._version_2 else 4,
        )
        answer = self._ask(request, self._coordinator_node, _error_code, time.monotonic() + COMMIT_TIMEOUT_S)
        if self._version_2:
            self._state = ProducerState(answer.producer_id, answer.producer_epoch, 0)

    def await_stable(self, offset: int, timeout_s: float) -> None:
        """Return once the last stable offset is behind that offset. Raises ProducerFailed."""
        request = offset_request(self._topic, self._partition, OffsetSpec.LATEST, READ_COMMITTED)

        def error_code(answer: Any) -> int:
            code: int = answer.topics[0].partitions[0].error_code
            return code

        deadline_s = time.monotonic() + timeout_s
        with self._failing("waiting until it is stable"):
            while True:
                look_s = time.monotonic() + REQUEST_TIMEOUT_MS / 1000  # the last look has time to be answered, too
                answer = self._ask(request, self._leader_node, error_code, look_s)
                stable = answer.topics[0].partitions[0].offset
                if stable > offset:
                    return
                if time.monotonic() > deadline_s:
                    raise kafka_errors.KafkaTimeoutError(
                        f"offset {offset} is not stable after {timeout_s:g} s, only what is before {stable}"
                    )
                time.sleep(BUSY_RETRY_S)

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (kafka_errors.KafkaError, ValueError, TypeError) as error:
            remedy = remedy_of(error)
            hint = TAKEN if isinstance(error, _FENCED) else remedy
            failure = ProducerFailed(f"{what}: {said(error)}" + (f"; {hint}" if hint else ""))
            failure.refused = remedy is not None
            failure.forgotten = isinstance(error, _FORGOTTEN)
            failure.fenced = isinstance(error, _FENCED)
            raise failure from error

    # --- asking -----------------------------------------------------------------------------------------------------

    def _ask(
        self, request: Any, node: Callable[[float], int], error_code: Callable[[Any], int], deadline_s: float
    ) -> Any:
        """The answer to a request, sent again where it got lost or another try may do. Raises the client's errors.

        Every request here may be sent again: a write has its sequence numbers, the others their producer's epoch.
        """
        busy_s = BUSY_RETRY_S
        while True:
            try:
                answer = self._send(request, node(deadline_s), deadline_s)
                code = error_code(answer)
                if not code:
                    return answer
                raise kafka_errors.for_code(code)()
            except kafka_errors.KafkaError as error:
                passing = error.retriable or isinstance(error, kafka_errors.UnknownBrokerIdError)
                if not passing or time.monotonic() > deadline_s:
                    raise
                if isinstance(error, kafka_errors.ConcurrentTransactionsError):
                    time.sleep(busy_s)
                    busy_s = min(2 * busy_s, RETRY_S)
                    continue
            time.sleep(RETRY_S)
            self._coordinator = None  # who leads and who coordinates may have changed
            self._refresh()

    def _send(self, request: Any, node: int | None, deadline_s: float) -> Any:
        timeout_ms = max(min(REQUEST_TIMEOUT_MS, (deadline_s - time.monotonic()) * 1000), 1)
        future = self._manager.send(request, node_id=node, request_timeout_ms=timeout_ms)
        self._net.poll(timeout_ms, future)
        if not future.is_done:
            raise kafka_errors.KafkaTimeoutError(f"no answer to {type(request).__name__} within {timeout_ms:.0f} ms")
        if future.exception is not None:
            raise future.exception
        return future.value

    def _refresh(self) -> None:
        future = self._manager.call_soon(self._manager.cluster.refresh_metadata)
        self._net.poll(REQUEST_TIMEOUT_MS, future)

    def _leader_node(self, deadline_s: float) -> int:
        node: int | None = self._manager.cluster.leader_for_partition(self._at)
        if node is None or node < 0:
            raise kafka_errors.LeaderNotAvailableError(
                f"{self._topic}-{self._partition} has no leader, or is not there any more"
            )
        return node

    def _coordinator_node(self, deadline_s: float) -> int:
        if self._coordinator is None:
            find = FindCoordinatorRequest(key=self._id, key_type=TRANSACTION_COORDINATOR, max_version=3)
            found = self._send(find, None, deadline_s)
            if found.error_code:
                raise kafka_errors.for_code(found.error_code)(found.error_message)
            self._coordinator = found.node_id
        return self._coordinator

    # --- the end ----------------------------------------------------------------------------------------------------

    def discard(self) -> None:
        """Throw the producer away without waiting for anything. Its open transaction is left to be fenced."""
        self._manager.close()
        self._net.close()

    close = discard


def _error_code(answer: Any) -> int:
    code: int = answer.error_code
    return code


def _chunks(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """The messages in pieces that fit into a record batch each."""
    room, first = MESSAGE_BYTES_MAX - BATCH_OVERHEAD_BYTES, 0
    left = room
    for at, message in enumerate(messages):
        size = message_size(message)
        if size > left and at > first:
            yield messages[first:at]
            first, left = at, room
        left -= size
    yield messages[first:]
