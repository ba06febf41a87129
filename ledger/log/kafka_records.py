"""A log's record as a Kafka record and back.

Key: the routing key. Value: the event's bytes. Headers: CloudEvents 1.0 in binary mode (what is required, and the
sequence), the content type, and the batch id. Two kinds of record carry no event and have no position: a barrier
(always in an aborted transaction) and a statement of the log's format.
"""

from __future__ import annotations

import json

from session_ledger.domain.errors import LogCorrupt, LogTooNew
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log.kafka_batch import header, headers, varint
from session_ledger.ledger.log.kafka_types import Fetched, Message
from session_ledger.ledger.log.port import Record

FORMAT = 1  # of what stands in this file; raised when an older reader would misread a newer log
CONTROL = -1  # the control log's number among the partitions

BATCH = "sl_batch"
BARRIER = "sl_barrier"
META = "sl_meta"
_ID, _SEQUENCE = b"ce_id", b"ce_sequence"
SEQUENCE_DIGITS = 20
HEADERS = varint(7) + header("ce_specversion", b"1.0") + varint(len(_ID)) + _ID
SEQUENCE = varint(len(_SEQUENCE)) + _SEQUENCE + varint(SEQUENCE_DIGITS)
CONTENT_TYPE = header("content-type", b"application/avro")


class RecordCodec:
    """Encodes and decodes the records of one partition of one ledger. Thread-safe."""

    def __init__(self, ledger: str, partition: int) -> None:
        self._where = f"partition {partition}" if partition != CONTROL else "the control log"
        place = "control" if partition == CONTROL else str(partition)
        self._source = header("ce_source", f"/{ledger}/{place}".encode())
        self._types: dict[str, bytes] = {}
        self._topics: dict[bytes, str] = {}
        self._batch: tuple[bytes, bytes] = b"", b""

    def encode(self, record: Record) -> Message:
        """The Kafka record of an event."""
        ce_type = self._types.get(record.topic)
        if ce_type is None:
            # What stands between the id and the sequence is the same for all events of a type.
            ce_type = self._types[record.topic] = header("ce_type", record.topic.encode()) + self._source
        batch_id, framing = self._batch
        if batch_id != record.batch_id:
            framing = CONTENT_TYPE + header(BATCH, record.batch_id)
            self._batch = record.batch_id, framing
        identity = b"%b/%d" % (format_id(record.originator_id).encode(), record.version)
        encoded = b"".join(
            (HEADERS, varint(len(identity)), identity, ce_type, SEQUENCE, b"%020d" % record.position, framing)
        )
        return record.key.encode() or None, record.value, encoded

    def decode(self, fetched: Fetched) -> Record | None:
        """The event of a Kafka record, None for a record without one. Raises LogCorrupt, LogTooNew."""
        found = dict(fetched.headers)
        try:
            identity = found["ce_id"]
            ce_type = found["ce_type"]
            topic = self._topics.get(ce_type)
            if topic is None:
                topic = self._topics[ce_type] = ce_type.decode()
            key = fetched.key
            return Record(
                int(found["ce_sequence"]),
                found[BATCH],
                bytes.fromhex(identity[:36].replace(b"-", b"").decode()),
                int(identity[37:]),
                topic,
                fetched.value or b"",
                key.decode() if key else "",
            )
        except (KeyError, ValueError) as error:
            if BARRIER in found:
                return None
            if META in found:
                self._check_format(found[META])
                return None
            raise LogCorrupt(
                f"{self._where}, offset {fetched.offset}: not a record of this ledger ({error!r}); "
                "only the ledger may write to its topics"
            ) from error

    def _check_format(self, found: bytes) -> None:
        if int(found) > FORMAT:
            raise LogTooNew(
                f"{self._where} was written in format {int(found)} by a newer version; this one reads up to {FORMAT}: "
                "update session-ledger"
            )


def barrier() -> Message:
    """A record to be aborted: its offset is a place that readers must reach, its write proves ownership."""
    return None, b"", headers([(BARRIER, b"")])


def meta(ledger: str, partitions: int) -> Message:
    """The first record of a control log: the format that the whole log is written in."""
    facts = {"format": FORMAT, "ledger": ledger, "partitions": partitions}
    return None, json.dumps(facts).encode(), headers([(META, str(FORMAT).encode())])
