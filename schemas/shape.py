"""What a schema says of one value, in a form that is easy to generate code from."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a value. `kind` is one of the constants below; the other fields belong to some kinds only."""

    kind: str
    """fixed, string, bytes, long, time, boolean, decimal, map, array or record."""
    nullable: bool = False
    size: int = 0
    """fixed: bytes."""
    precision: int = 0
    scale: int = 0
    item: Shape | None = None
    """array: of its items."""
    name: str = ""
    """fixed, record: the name within the namespace."""
    fields: tuple[tuple[str, Shape], ...] = ()
    """record: name and shape of each field."""
    uuid: bool = False
    """fixed: a UUID."""


class UnsupportedSchema(ValueError):
    """The schema uses a part of Avro that our own schemas do not use."""


def record_shape(schema: dict[str, object]) -> Shape:
    """The shape of a record as it stands in an .avsc file. Raises UnsupportedSchema."""
    return _shape(schema, {})


def _shape(schema: object, names: dict[str, Shape]) -> Shape:
    if isinstance(schema, list):
        if len(schema) != 2 or schema[0] != "null":
            raise UnsupportedSchema(f"union {schema}: only null and one other type, in this order")
        return replace(_shape(schema[1], names), nullable=True)
    if isinstance(schema, str):
        if schema in names:
            return names[schema]
        schema = {"type": schema}
    if not isinstance(schema, dict):
        raise UnsupportedSchema(f"{schema!r}")
    kind, logical = schema.get("type"), schema.get("logicalType")
    match kind, logical:
        case (("string" | "bytes" | "long" | "boolean"), None):
            return Shape(str(kind))
        case "long", "timestamp-micros":
            return Shape("time")
        case "bytes", "decimal":
            return Shape("decimal", precision=int(schema["precision"]), scale=int(schema["scale"]))
        case "fixed", (None | "uuid"):
            shape = Shape("fixed", size=int(schema["size"]), name=str(schema["name"]), uuid=logical == "uuid")
            names[shape.name] = shape
            return shape
        case "map", None if schema.get("values") == "string":
            return Shape("map")
        case "array", None:
            return Shape("array", item=_shape(schema["items"], names))
        case "record", None:
            fields = tuple((str(f["name"]), _shape(f["type"], names)) for f in schema["fields"])
            return Shape("record", name=str(schema["name"]), fields=fields)
        case _:
            raise UnsupportedSchema(f"type {kind!r} with logical type {logical!r}")
