"""One partition of a ledger on Kafka: appends in transactions of one producer, thrown away after any failure.

The owner knows the end exactly: a barrier at the start, its own commits after. What a failure left behind is settled by
another barrier, made by the next producer, and by the batch id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from session_ledger.domain.errors import (
    AppendFailed,
    LedgerClosed,
    LogRefused,
    LogUnavailable,
    NotOwner,
    OutcomeUnknown,
)
from session_ledger.ledger.log.kafka_lease import OwnerLease
from session_ledger.ledger.log.kafka_producer import Producer
from session_ledger.ledger.log.kafka_reader import PartitionReader
from session_ledger.ledger.log.kafka_records import RecordCodec, barrier
from session_ledger.ledger.log.kafka_types import (
    MESSAGE_BYTES_MAX,
    BrokerAway,
    ClientOptions,
    Message,
    ProducerFailed,
    Sent,
    message_size,
)
from session_ledger.ledger.log.port import Record
from session_ledger.ledger.log.recorder import RecordedPartition, check_batch
from session_ledger.security.elapsed import elapsed_s

HANGING_S = 3.0  # a transaction of one's own id that is stuck before the barrier is ended after this
KNOWN_S = 2.5  # stable later than this after its commit began: a next owner may have ended it without its records
STABLE_TIMEOUT_S = 15.0  # a commit that is not stable by then is of unknown outcome
REVIVE_EVERY_S = 2.0  # at most one new producer in this time: each fences, and two owners must not fence in turns
PROOF_AGE_S = 1.0  # how old a proof of ownership may be: bounds the cost of answers without events


class KafkaPartition(RecordedPartition):
    """Partition `partition` of the ledger `ledger`; -1 is the control log. Thread-safe."""

    proof_age_s = PROOF_AGE_S

    def __init__(
        self,
        options: ClientOptions,
        ledger: str,
        partition: int,
        topic: str,
        codec: RecordCodec,
        reader: PartitionReader,
        lease: OwnerLease | None,
        broker_clock: bool,
    ) -> None:
        """`lease` None: for reading only. `broker_clock`: the topic's timestamps are the broker's."""
        super().__init__()
        self.partition = partition
        self._name = f"{ledger}-{'control' if partition < 0 else partition}"
        self._options, self._topic, self._codec = options, topic, codec
        self._reader, self._lease, self._broker_clock = reader, lease, broker_clock
        self._lock = threading.RLock()  # guards everything of the writer
        self._changed = threading.Condition()
        self._producer: Producer | None = None
        self._end = 0
        self._offset = -1  # of the last record that this instance wrote
        self._unsettled: tuple[bytes, int] | None = None  # batch id and last position of an append of unknown outcome
        self._writing = False  # a transaction is open, or was left by an exception: this producer is used no more
        self._revived_at_s = -REVIVE_EVERY_S
        self._proved_at_s = -PROOF_AGE_S
        self._lost: str | None = None
        self._clock_offset_us: int | None = None  # the broker's clock less this machine's monotonic one
        self._closed = False

    # --- taking the partition -------------------------------------------------------------------------------------

    def take(self) -> None:
        """Fence whoever wrote before, and find the end behind a barrier. Raises LogUnavailable, LogCorrupt."""
        with self._lock:
            self._reader.assert_whole()
            self._producer, self._end = self._new_producer()

    def _new_producer(self) -> tuple[Producer, int]:
        """A producer that holds the partition, and the position of the last record of all that were before it."""
        producer: Producer | None = None
        try:
            producer = Producer(self._options, self._name, self._topic, max(self.partition, 0))
            started_s = elapsed_s()
            sent = self._behind(producer.send([barrier()]))
            if not self._is_reached(sent.first_offset, HANGING_S):
                # What hangs before may be of this id: a marker that a killed broker never wrote. The abort ends it;
                # nothing of it was acknowledged, for it was never stable.
                producer.abort()
                sent = producer.send([barrier()])
            end = self._reader.last_before(sent.first_offset)
            producer.abort()
        except BaseException as error:
            if producer is not None:
                producer.discard()
            if isinstance(error, BrokerAway | ProducerFailed | LogUnavailable) and not isinstance(error, LogRefused):
                raise self._not_taken(error) from error
            raise
        self._proved(sent, started_s)
        return producer, end

    def _behind(self, sent: Sent) -> Sent:
        """What was sent, which must stand behind all that this instance wrote before. Raises NotOwner."""
        if sent.first_offset <= self._offset:
            self._lose(
                f"topic {self._topic} goes on at offset {sent.first_offset} where {self._offset + 1} or more is due: "
                "it was truncated, or deleted and made again, and has lost records; restore it"
            )
        self._offset = sent.last_offset
        return sent

    def _not_taken(self, error: Exception) -> LogUnavailable:
        """What to raise; the last stable offset is where an open transaction begins that does not end by itself."""
        what = f"{self._name} can not be taken: {error}"
        if isinstance(error, ProducerFailed) and error.refused:
            return LogRefused(what)
        stable = self._known_stable_end() if isinstance(error, LogUnavailable) else None  # no broker: nobody to ask
        if stable is None:
            return LogUnavailable(what)
        return LogUnavailable(
            f"{what}; the last stable offset is {stable}. If it stays there, the transaction that begins there hangs, "
            f"and ends by: kafka-transactions.sh --bootstrap-server {self._options.bootstrap} abort --topic "
            f"{self._topic} --partition {max(self.partition, 0)} --start-offset {stable}"
        )

    def _is_reached(self, offset: int, timeout_s: float) -> bool:
        """Whether everything before that offset is stable in time."""
        try:
            self._reader.await_stable(offset - 1, timeout_s)
        except LogUnavailable:
            return False
        return True

    def _known_stable_end(self) -> int | None:
        try:
            return self._reader.stable_end()
        except LogUnavailable:
            return None

    def _revive(self) -> Producer:
        """The producer, a new one if the last was thrown away. Raises NotOwner, LogUnavailable."""
        self._assert_owner()
        if self._producer is not None and not self._writing:
            return self._producer
        assert self._lease is not None, "checked above"
        if time.monotonic() - self._revived_at_s < REVIVE_EVERY_S:
            raise LogUnavailable(f"{self._name} is taken again at most every {REVIVE_EVERY_S:g} s: try again")
        self._revived_at_s = time.monotonic()
        self._lease.confirm()
        if self._producer is not None:
            self._discard(self._producer)
        producer, end = self._new_producer()
        try:
            if not self._is_own(end):
                self._lose(
                    f"another owner wrote to {self._name}: it ends at {end}, not at {self._end}; open the ledger again"
                )
        except BaseException:
            producer.discard()
            raise
        self._producer, self._unsettled, self._writing = producer, None, False
        self._move_end(end)
        return producer

    def _is_own(self, end: int) -> bool:
        """Whether only this instance has written since it knew the end."""
        if self._unsettled is None or end == self._end:
            return end == self._end
        batch_id, last = self._unsettled
        return end == last and self._reader.read(last - 1, 1, end)[0].batch_id == batch_id

    def _lose(self, why: str) -> None:
        self._lost = why
        if self._producer is not None:
            self._discard(self._producer)
        raise NotOwner(why)

    def _assert_owner(self) -> None:
        if self._closed:
            raise LedgerClosed(f"{self._name} is closed")
        if self._lost is not None:
            raise NotOwner(self._lost)
        if self._lease is None:
            raise NotOwner(f"{self._name} is open for reading only")
        self._lease.check()

    def write_meta(self, message: Message) -> None:
        """Write a record without a position. Raises LogUnavailable."""
        with self._lock:
            producer = self._revive()
            self._writing = True
            try:
                producer.send([message])
                producer.commit()
                self._writing = False
            except ProducerFailed as error:
                self._discard(producer)
                raise LogUnavailable(f"{self._name}: the log's format could not be stated: {error}") from error

    # --- the port -------------------------------------------------------------------------------------------------

    def append(self, records: Sequence[Record]) -> None:
        """See the port."""
        with self._lock:
            self._assert_owner()
            check_batch(records, self._end)
            messages = [self._codec.encode(record) for record in records]
            _check_sizes(messages)
            try:
                self._revive()
                check_batch(records, self._end)
                producer, sent, started_s = self._write(messages)
            except LogUnavailable as error:
                raise AppendFailed(f"{error}; nothing was recorded") from error
            except ProducerFailed as error:
                raise AppendFailed(f"{self._name}: {error}; nothing was recorded") from error
            self._unsettled = records[0].batch_id, records[-1].position  # until it is known, whatever is raised
            committing_s = elapsed_s()
            try:
                producer.commit()
                # A commit is answered before its marker is written. A broker that is killed in between may never write
                # it, and the next abort of this id would take the records back: so they are acknowledged when stable.
                producer.await_stable(sent.last_offset, STABLE_TIMEOUT_S)
                if elapsed_s() - committing_s > KNOWN_S:  # an abort makes it stable, too, and takes it back
                    raise ProducerFailed(f"the commit took more than {KNOWN_S:g} s: another owner may have undone it")
            except ProducerFailed as error:
                self._discard(producer)
                raise OutcomeUnknown(
                    f"{self._name}: {error}; positions {records[0].position} to {records[-1].position} may be recorded"
                ) from error
            self._proved(sent, started_s)
            self._move_end(records[-1].position)
            self._unsettled, self._writing = None, False

    def settle(self, batch_id: bytes, first_position: int) -> bool:
        """See the port. Makes a new producer if need be, at most one in REVIVE_EVERY_S: LogUnavailable until then."""
        with self._lock:
            self._revive()
            before = self._reader.read(first_position - 2, 2, self._end) if first_position > 1 else []
            at = before[1:] if before else self._reader.read(first_position - 1, 1, self._end)
            begins = not before or before[0].batch_id != batch_id
            return begins and [record.batch_id for record in at] == [batch_id]

    def prove_ownership(self) -> None:
        """See the port; the proof is no older than `proof_age_s`. Raises LogUnavailable if no broker answers."""
        self._assert_owner()
        if elapsed_s() - self._proved_at_s <= PROOF_AGE_S:
            return
        with self._lock:
            self._assert_owner()
            if elapsed_s() - self._proved_at_s <= PROOF_AGE_S:
                return
            self._revive()
            if elapsed_s() - self._proved_at_s <= PROOF_AGE_S:
                return
            try:
                producer, sent, started_s = self._write([barrier()])  # a fenced producer's empty transaction succeeds
            except ProducerFailed as error:
                raise self._not_proved(error) from error
            try:
                producer.abort()
                self._writing = False
            except ProducerFailed as error:
                self._failed(producer, error)
                raise self._not_proved(error) from error
            self._proved(sent, started_s)

    def _not_proved(self, error: ProducerFailed) -> LogUnavailable:
        found = LogUnavailable(f"{self._name}: ownership can not be proved: {error}")
        found.fenced = error.fenced
        return found

    def _write(self, messages: Sequence[Message]) -> tuple[Producer, Sent, float]:
        """Begin a transaction: (who wrote, what, when it began). Raises ProducerFailed, NotOwner, LogUnavailable.

        Its caller resets `_writing` when the transaction has ended. Where that is left true (by an interrupt, a defect)
        the producer is replaced before the next write, and what it left is settled. A producer that the brokers forgot
        in a long idle time is replaced first; nothing was written then.
        """
        for again in (False, True):
            producer = self._revive()
            started_s = elapsed_s()
            self._writing = True
            try:
                return producer, self._behind(producer.send(messages)), started_s
            except ProducerFailed as error:
                self._failed(producer, error)
                if again or not error.forgotten:
                    raise
        raise AssertionError("a second failure was raised")

    def _failed(self, producer: Producer, error: ProducerFailed) -> None:
        """Throw the producer away; NotOwner if it was fenced by another owner rather than timed out by the broker."""
        self._discard(producer)
        assert self._lease is not None, "the owner has a lease"
        if error.fenced:
            try:
                self._lease.confirm()
            except LogUnavailable:
                return

    def _discard(self, producer: Producer) -> None:
        self._producer = None
        producer.discard()

    def _proved(self, sent: Sent, started_s: float) -> None:
        """Note that this instance owned the partition at some instant after `started_s` (of `elapsed_s`)."""
        self._proved_at_s = started_s
        if self._broker_clock and sent.broker_time_us is not None:
            self._clock_offset_us = sent.broker_time_us - time.monotonic_ns() // 1000

    def _move_end(self, end: int) -> None:
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def read(self, after: int, limit: int) -> list[Record]:
        """See the port."""
        return self._reader.read(after, limit, None if self._lease is None else self._end)

    def end(self) -> int:
        """See the port; exact for the owner, for a reader what is before the last stable offset."""
        if self._closed:
            raise LedgerClosed(f"{self._name} is closed")
        return self._reader.end() if self._lease is None else self._end

    def wait(self, after: int, timeout_s: float) -> bool:
        """See the port."""
        if self._lease is None:
            try:
                return self._reader.wait(after, timeout_s)
            except LedgerClosed:
                return True
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._end > after, timeout_s)

    def undecided(self) -> int:
        """See the port: the high watermark less the last stable offset."""
        return self._reader.undecided()

    def clock_us(self) -> int | None:
        """The broker's clock, set by every append and proof; None for a reader and where the topic does not tell."""
        offset_us = self._clock_offset_us
        return None if offset_us is None else time.monotonic_ns() // 1000 + offset_us

    def close(self) -> None:
        """Let the producer and the readers go; the lease is the log's. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        with self._lock:
            producer, self._producer = self._producer, None
            if producer is not None:
                producer.close()
        self._reader.close()


def _check_sizes(messages: Sequence[Message]) -> None:
    """Raise AppendFailed for what a Kafka record batch of the ledger can not hold."""
    largest = max(message_size(message) for message in messages)
    if largest > MESSAGE_BYTES_MAX - 1024:
        raise AppendFailed(
            f"a record of {largest} bytes does not fit into a message of {MESSAGE_BYTES_MAX}; nothing was recorded"
        )
