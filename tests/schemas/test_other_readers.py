"""Other people's Avro libraries read what we write."""

from __future__ import annotations

import pytest

from session_ledger.domain.events import EVENT_TYPES, Event
from session_ledger.schemas.codec import SINGLE_OBJECT_HEADER, Codec
from tests.schemas.golden import example
from tests.schemas.readers import apache_reads, as_read
from tests.schemas.strategies import LIBRARY, SHAPES

CODEC = Codec(LIBRARY)


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_apaches_reader_reads_our_bytes(event_type: type[Event]) -> None:
    """Each field's value comes out of Apache's Python library, with the logical types that it knows."""
    event = example(event_type, SHAPES[event_type])
    body = CODEC.encode(event)[SINGLE_OBJECT_HEADER:]
    assert as_read(event) == apache_reads(LIBRARY.of(event_type).text, body)
