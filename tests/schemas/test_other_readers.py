"""Other people's Avro libraries read what we write."""

from __future__ import annotations

import io
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from avro.errors import IgnoredLogicalType
from avro.io import BinaryDecoder, DatumReader
from avro.schema import parse

from session_ledger.domain.events import EVENT_TYPES, Event
from session_ledger.schemas.codec import SINGLE_OBJECT_HEADER, Codec
from tests.schemas.golden import example
from tests.schemas.strategies import LIBRARY, SHAPES

CODEC = Codec(LIBRARY)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda cls: cls.__name__)
def test_apaches_reader_reads_our_bytes(event_type: type[Event]) -> None:
    """Each field's value comes out of Apache's Python library, with the logical types that it knows."""
    event = example(event_type, SHAPES[event_type])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredLogicalType)  # uuid on a fixed is newer than this reader
        schema = parse(LIBRARY.of(event_type).text)
    reader: Any = DatumReader
    decoder: Any = BinaryDecoder
    found = reader(schema).read(decoder(io.BytesIO(CODEC.encode(event)[SINGLE_OBJECT_HEADER:])))
    expected = {name: getattr(event, name) for name, _ in SHAPES[event_type].fields}
    for name, shape in SHAPES[event_type].fields:
        if shape.kind == "time":
            expected[name] = EPOCH + timedelta(microseconds=expected[name])
        elif shape.kind == "array":
            expected[name] = [
                {part: getattr(item, part) for part, _ in shape.item.fields}
                if shape.item is not None and shape.item.kind == "record"
                else item
                for item in expected[name]
            ]
    assert expected == found
