"""A log's record as a Kafka record and back.

Key: the routing key. Value: the event's bytes. Headers: CloudEvents 1.0 in binary mode (what is required, and the
sequence), the content type, and the batch id. Two kinds of record carry no event and have no position: a barrier
(always in an aborted transaction) and a statement of the log's format.
"""

from __future__ import annotations

import json

from session_ledger.domain.errors import LogCorrupt, LogTooNew
from session_ledger.domain.ids import format_id
from session_ledger.ledger.log.kafka_types import Fetched, Message
from session_ledger.ledger.log.port import Record

FORMAT = 1  # of what stands in this file; raised when an older reader would misread a newer log
CONTROL = -1  # the control log's number among the partitions

BATCH = "sl_batch"
BARRIER = "sl_barrier"
META = "sl_meta"
SPEC_VERSION = ("ce_specversion", b"1.0")
CONTENT_TYPE = ("content-type", b"application/avro")


class RecordCodec:
    """Encodes and decodes the records of one partition of one ledger. Thread-safe."""

    def __init__(self, ledger: str, partition: int) -> None:
        self._where = f"partition {partition}" if partition != CONTROL else "the control log"
        place = "control" if partition == CONTROL else str(partition)
        self._source = ("ce_source", f"/{ledger}/{place}".encode())
        self._types: dict[str, tuple[str, bytes]] = {}
        self._topics: dict[bytes, str] = {}

    def encode(self, record: Record) -> Message:
        """The Kafka record of an event."""
        ce_type = self._types.get(record.topic)
        if ce_type is None:
            ce_type = self._types[record.topic] = ("ce_type", record.topic.encode())
        headers = [
            SPEC_VERSION,
            ("ce_id", f"{format_id(record.originator_id)}/{record.version}".encode()),
            ce_type,
            self._source,
            ("ce_sequence", b"%020d" % record.position),
            CONTENT_TYPE,
            (BATCH, record.batch_id),
        ]
        return record.key.encode() or None, record.value, headers

    def decode(self, fetched: Fetched) -> Record | None:
        """The event of a Kafka record, None for a record without one. Raises LogCorrupt, LogTooNew."""
        headers = dict(fetched.headers)
        try:
            identity = headers["ce_id"]
            ce_type = headers["ce_type"]
            topic = self._topics.get(ce_type)
            if topic is None:
                topic = self._topics[ce_type] = ce_type.decode()
            key = fetched.key
            return Record(
                int(headers["ce_sequence"]),
                headers[BATCH],
                bytes.fromhex(identity[:36].replace(b"-", b"").decode()),
                int(identity[37:]),
                topic,
                fetched.value or b"",
                key.decode() if key else "",
            )
        except (KeyError, ValueError) as error:
            if BARRIER in headers:
                return None
            if META in headers:
                self._check_format(headers[META])
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
    return None, b"", [(BARRIER, b"")]


def meta(ledger: str, partitions: int) -> Message:
    """The first record of a control log: the format that the whole log is written in."""
    facts = {"format": FORMAT, "ledger": ledger, "partitions": partitions}
    return None, json.dumps(facts).encode(), [(META, str(FORMAT).encode())]
