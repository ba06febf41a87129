"""Records to the bytes of a record batch (version 2 of Kafka's message format), for a transactional producer.

The format: https://kafka.apache.org/documentation/#recordbatch. Its varints are Avro's, zigzag encoded.
Every record of a batch has the batch's time: the topics of a ledger carry the broker's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from session_ledger.ledger.log.kafka_types import Message
from session_ledger.schemas.varint import encode_long

_HEADER = struct.Struct(">qiibIhiqqqhii")
_BEFORE_LENGTH = 12  # bytes of the batch that its length does not count
_CHECKED_FROM = 21  # where the bytes that the checksum covers begin
_CHECKSUM = struct.Struct(">I")
_CHECKSUM_AT = 17
_MAGIC = 2
_TRANSACTIONAL = 0x10
_SHORT = 1 << 13  # varints below this are looked up: lengths and offsets of most records


class Compression(NamedTuple):
    """A codec of Kafka: its number in the attributes of a batch, and what compresses."""

    number: int
    compress: Callable[[bytes], bytes]


class ProducerState(NamedTuple):
    """What a broker knows a producer by; `sequence` is that of the batch's first record."""

    producer_id: int
    epoch: int
    sequence: int


_SHORT_VARINTS = [encode_long(value) for value in range(_SHORT)]


def varint(value: int) -> bytes:
    """Zigzag, seven bits a byte, the lowest first."""
    return _SHORT_VARINTS[value] if 0 <= value < _SHORT else encode_long(value)


def header(name: str, content: bytes) -> bytes:
    """One header of a record."""
    key = name.encode()
    return varint(len(key)) + key + varint(len(content)) + content


def headers(of: Sequence[tuple[str, bytes]]) -> bytes:
    """The headers of a record, with their count before them."""
    return varint(len(of)) + b"".join(header(name, content) for name, content in of)


def record_batch(
    messages: Sequence[Message],
    producer: ProducerState,
    timestamp_ms: int,
    compression: Compression | None,
    checksum: Callable[[memoryview], int],
) -> bytearray:
    """The batch of one partition, part of the producer's transaction. `checksum`: CRC-32C. `messages` is not empty."""
    short, parts = _SHORT_VARINTS, []
    for offset, (key, value, encoded_headers) in enumerate(messages):
        size = len(value)
        record = b"".join(
            (
                b"\0\0",  # attributes, and the time's distance from the batch's
                short[offset] if offset < _SHORT else encode_long(offset),
                b"\1" if key is None else varint(len(key)) + key,
                short[size] if size < _SHORT else encode_long(size),
                value,
                encoded_headers,
            )
        )
        size = len(record)
        parts.append(short[size] if size < _SHORT else encode_long(size))
        parts.append(record)
    body, attributes = b"".join(parts), _TRANSACTIONAL
    if compression is not None:
        compressed = compression.compress(body)
        if len(compressed) < len(body):
            body, attributes = compressed, attributes | compression.number
    batch = bytearray(_HEADER.size)
    batch += body
    count = len(messages)
    _HEADER.pack_into(
        batch, 0, 0, len(batch) - _BEFORE_LENGTH, -1, _MAGIC, 0, attributes, count - 1, timestamp_ms, timestamp_ms,
        *producer, count,
    )  # fmt: skip
    _CHECKSUM.pack_into(batch, _CHECKSUM_AT, checksum(memoryview(batch)[_CHECKED_FROM:]))
    return batch
