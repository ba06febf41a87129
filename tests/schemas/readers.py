"""What other people's Avro libraries give for an event, and Apache's own Python reader."""

from __future__ import annotations

import dataclasses
import io
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from avro.errors import IgnoredLogicalType
from avro.io import BinaryDecoder, DatumReader
from avro.schema import parse

from session_ledger.domain.events import Event
from tests.schemas.strategies import SHAPES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def as_read(event: Event) -> dict[str, object]:
    """The event as Python's Avro libraries have it: datetimes for times, lists for tuples, dicts for records."""

    def convert(kind: str, value: object) -> object:
        if kind == "time" and value is not None:
            return EPOCH + timedelta(microseconds=cast(int, value))
        if kind == "array":
            items = cast(tuple[object, ...], value)
            return [dataclasses.asdict(item) if dataclasses.is_dataclass(item) else item for item in items]  # type: ignore[arg-type]
        return value

    return {name: convert(shape.kind, getattr(event, name)) for name, shape in SHAPES[type(event)].fields}


def apache_reads(schema_text: str, body: bytes) -> object:
    """What Apache's `avro` makes of a record's body."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IgnoredLogicalType)  # uuid on a fixed is newer than this reader
        schema = parse(schema_text)
    reader: Any = DatumReader
    decoder: Any = BinaryDecoder
    return reader(schema).read(decoder(io.BytesIO(body)))
