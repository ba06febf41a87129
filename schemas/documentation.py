"""docs/events.md, made from the schemas, so that it can not say anything else than they do."""

from __future__ import annotations

import json
from collections.abc import Iterator

from session_ledger.domain.events import EVENT_TYPES
from session_ledger.schemas.history import History
from session_ledger.schemas.library import parse
from session_ledger.schemas.shape import Shape, record_shape

_INTRODUCTION = """\
# Events

Made from the schemas in `schemas/v1/` by `python -m session_ledger.schemas.check --write`; do not edit.

An event is a recorded fact. Each type has one Avro schema, whose full name is the topic of its events
(`session_ledger.events.MessageAdded`). A record's value is one event in one of two forms, and every reader takes both:

- Avro single-object encoding: `C3 01`, the schema's CRC-64-AVRO fingerprint (8 bytes, little-endian), the Avro body.
- Confluent wire format, where a schema registry is configured: `00`, the schema's id (4 bytes, big-endian), the body.

In the tables, *id* is a fixed of 16 bytes with the logical type uuid, *fixed n* are n bytes, *time* is a long of
microseconds since the epoch in UTC (timestamp-micros), *decimal* has 18 digits of which 6 are decimals, and *or null*
is a union with null whose default is null. A field `sealed_...` holds ciphertext, opened with the data key `key_id`.
A text with documented values is an open set: readers must expect others.

## Changing a schema

Fields are appended with a default, never removed, renamed or given another type, logical type or meaning. The check
holds that every version that was ever released reads every other, both ways. To add a field: append it to the
`.avsc` and to the dataclass, run `python -m session_ledger.schemas.check --release --write`, and
`python -m tests.schemas.golden` for the golden file of the new version. Released files are never changed.
"""


def render(history: History) -> str:
    """The whole text."""
    schemas = {cls.__name__: json.loads(history.current[cls.__name__]) for cls in EVENT_TYPES}
    shared = _shared(list(schemas.values()))
    parts = [_INTRODUCTION, "## Fields of every event\n", _table(next(iter(schemas.values())), 0, shared)]
    for name, schema in schemas.items():
        versions = max(history.released.get(name, {}), default=0)
        fingerprint = parse(history.current[name]).fingerprint.hex()
        parts += [f"## {name}\n", f"{schema['doc']}\n", f"Version {versions}, fingerprint `{fingerprint}`.\n"]
        parts += [_table(schema, shared, None), *_nested(schema)]
    return "\n".join(parts)


def _shared(schemas: list[dict[str, object]]) -> int:
    """How many fields all schemas begin with."""
    names = [[name for name, _ in record_shape(schema).fields] for schema in schemas]
    count = 0
    while all(len(each) > count and each[count] == names[0][count] for each in names):
        count += 1
    return count


def _table(schema: dict[str, object], start: int, stop: int | None) -> str:
    fields = schema["fields"]
    assert isinstance(fields, list)
    docs = [str(field["doc"]) for field in fields]
    rows = list(zip(record_shape(schema).fields, docs, strict=True))[start:stop]
    lines = ["| field | type | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {_words(shape)} | {doc} |" for (name, shape), doc in rows]
    return "\n".join(lines) + "\n"


def _nested(schema: dict[str, object]) -> Iterator[str]:
    fields = schema["fields"]
    assert isinstance(fields, list)
    for field in fields:
        kind = field["type"]
        if isinstance(kind, dict) and kind["type"] == "array" and isinstance(kind["items"], dict):
            yield f"### {kind['items']['name']}\n"
            yield f"{kind['items']['doc']}\n"
            yield _table(kind["items"], 0, None)


def _words(shape: Shape) -> str:
    match shape.kind:
        case "fixed":
            words = "id" if shape.uuid else f"fixed {shape.size}"
        case "string":
            words = "text"
        case "long":
            words = "integer"
        case "map":
            words = "map of text to text"
        case "array":
            assert shape.item is not None
            words = f"array of {shape.item.name or _words(shape.item)}"
        case other:
            words = other
    return f"{words} or null" if shape.nullable else words
