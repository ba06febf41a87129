"""Reading what another version wrote: Avro schema resolution into the current dataclass.

Rare (a record of another version than this one), so it uses fastavro and not generated code. New fields take the
current schema's default, fields that are gone are dropped (Avro specification, "Schema Resolution").
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from decimal import Decimal

from fastavro import schemaless_reader
from fastavro.read import SchemaResolutionError
from fastavro.schema import parse_schema

from session_ledger.schemas.library import Schema
from session_ledger.schemas.shape import Shape, record_shape
from session_ledger.schemas.varint import Damaged

_READ_ERRORS = (
    EOFError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    MemoryError,
    RecursionError,
    struct.error,
    SchemaResolutionError,
)


def compile_resolver(writer: Schema, reader: Schema, classes: Mapping[str, type]) -> Callable[[bytes, int], object]:
    """A decoder, as in `decoder`, of bodies written with `writer` into the dataclass of `reader`."""
    write = parse_schema(without_logical_types(writer.parsed()))
    read = parse_schema(without_logical_types(reader.parsed()))
    shape = record_shape(reader.parsed())

    def decode(value: bytes, i: int) -> object:
        stream = io.BytesIO(value)
        stream.seek(i)
        try:
            found = schemaless_reader(stream, write, read)
        except _READ_ERRORS as error:
            raise Damaged(f"the bytes do not resolve: {type(error).__name__}: {error}") from error
        if stream.tell() != len(value):
            raise Damaged(f"{len(value) - stream.tell()} trailing bytes")
        return _build(shape, found, classes)

    return decode


def _build(shape: Shape, found: object, classes: Mapping[str, type]) -> object:
    assert isinstance(found, dict)
    return classes[shape.name](**{name: _value(field, found[name], classes) for name, field in shape.fields})


def _value(shape: Shape, found: object, classes: Mapping[str, type]) -> object:
    if found is None:
        return None
    match shape.kind:
        case "decimal":
            return _decimal(shape, found)
        case "array":
            assert isinstance(found, list)
            assert shape.item is not None
            return tuple(_value(shape.item, item, classes) for item in found)
        case "record":
            return _build(shape, found, classes)
        case _:
            return found


def _decimal(shape: Shape, found: object) -> Decimal:
    assert isinstance(found, bytes)
    unscaled = int.from_bytes(found, "big", signed=True)
    if not found or abs(unscaled) >= 10**shape.precision:
        raise Damaged("a decimal has no bytes, or more digits than its precision")
    return Decimal(unscaled).scaleb(-shape.scale)


def without_logical_types(schema: dict[str, object]) -> dict[str, object]:
    """A copy of a record: the same bytes, read as plain numbers and bytes."""
    return {key: _stripped(part) for key, part in schema.items()}


def _stripped(part: object) -> object:
    if isinstance(part, dict):
        return {key: _stripped(inner) for key, inner in part.items() if key != "logicalType"}
    return [_stripped(inner) for inner in part] if isinstance(part, list) else part
