"""The bytes of a record batch, beside those that kafka-python makes of the same records."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.codec import gzip_encode, lz4_encode
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c

from session_ledger.ledger.log.kafka_batch import Compression, ProducerState, headers, record_batch
from session_ledger.ledger.log.kafka_producer import _chunks
from session_ledger.ledger.log.kafka_types import MESSAGE_BYTES_MAX, message_size

NOW_MS = 1_790_000_000_000
CODECS = {"none": None, "gzip": Compression(1, gzip_encode), "lz4": Compression(3, lz4_encode)}
LEADER_EPOCH = slice(12, 16)  # the broker's to set; -1 where it is not known, and kafka-python writes 0

record = st.tuples(
    st.none() | st.binary(max_size=300),
    st.binary(max_size=10_000),
    st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), max_size=9),
)
producers = st.builds(
    ProducerState,
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**15 - 1),
    st.integers(0, 2**31 - 1),
)


@pytest.mark.parametrize("codec", CODECS)
@given(records=st.lists(record, min_size=1, max_size=40), producer=producers)
def test_a_batch_is_what_kafka_python_makes(
    codec: str, records: list[tuple[bytes | None, bytes, list[tuple[str, bytes]]]], producer: ProducerState
) -> None:
    """Byte for byte, with every codec, but for the time that gzip notes and the leader's epoch."""
    compression = CODECS[codec]
    builder = DefaultRecordBatchBuilder(2, compression.number if compression else 0, True, *producer, 1 << 30)
    for offset, (key, value, of) in enumerate(records):
        builder.append(offset, NOW_MS, key, value, of)
    theirs = bytes(builder.build())
    messages = [(key, value, headers(of)) for key, value, of in records]
    ours = bytes(record_batch(messages, producer, NOW_MS, compression, calc_crc32c))
    assert struct.pack(">i", -1) == ours[LEADER_EPOCH]
    if codec != "gzip":
        assert theirs[: LEADER_EPOCH.start] == ours[: LEADER_EPOCH.start]
        assert theirs[LEADER_EPOCH.stop :] == ours[LEADER_EPOCH.stop :]
    batch = MemoryRecords(ours).next_batch()
    assert batch.validate_crc()
    assert records == [(one.key, one.value, one.headers) for one in batch]
    assert (batch.is_transactional, batch.producer_id, batch.producer_epoch, batch.base_sequence) == (True, *producer)


def test_more_records_than_short_varints() -> None:
    """Offsets and lengths beyond the table of short ones read back."""
    messages = [(b"k", b"v" * (n % 3) * 9_000, headers([])) for n in range(9_000)]
    batch = MemoryRecords(bytes(record_batch(messages, ProducerState(1, 2, 3), NOW_MS, None, calc_crc32c))).next_batch()
    assert [(n, len(value)) for n, (_, value, _) in enumerate(messages)] == [
        (one.offset, len(one.value)) for one in batch
    ]


@given(st.lists(st.integers(0, 3 * 1024 * 1024), min_size=1, max_size=12))
def test_chunks_fit_into_a_batch_each(sizes: list[int]) -> None:
    """All records in order, none left out, and no chunk larger than the topic takes."""
    messages = [(None, bytes(size), b"\0") for size in sizes]
    chunks = list(_chunks(messages))
    assert messages == [message for chunk in chunks for message in chunk]
    assert all(chunks)
    for chunk in chunks:
        assert sum(map(message_size, chunk)) < MESSAGE_BYTES_MAX
