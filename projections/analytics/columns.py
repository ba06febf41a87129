"""Events to columns: a batch as an Arrow table with the columns of `events` (schema.sql).

A batch is taken type by type and column by column: a column that an event type does not have costs nothing. What has no
column of its own goes into `details`, under its name in docs/events.md.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, cast

import pyarrow as pa

from session_ledger.domain.events import EVENT_TYPES, AgentEvent, Event, QuotaDefault, SessionEvent
from session_ledger.domain.ids import format_id

UUID_TYPE = pa.uuid()
TIME = pa.timestamp("us", tz="UTC")
AMOUNT = pa.decimal128(38, 6)
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("command_id", "session_id", "agent_id", "key_id"), UUID_TYPE),
    **dict.fromkeys(("tenant", "user", "agent_type", "kind", "channel", "domain", "role", "model"), pa.string()),
    **dict.fromkeys(("topic", "shared_source", "reason", "resource", "component", "error_type"), pa.string()),
    "severity": pa.string(),
    **dict.fromkeys(("version", "message_number", "tokens_in", "tokens_out", "tokens_cached"), pa.int64()),
    **dict.fromkeys(("tokens_reasoning", "latency_ms", "count", "waited_ms"), pa.int64()),
    **dict.fromkeys(("amount", "used", "limit"), AMOUNT),
    **dict.fromkeys(("recorded_at", "occurred_at"), TIME),
    "event_id": UUID_TYPE,
    "content": pa.binary(),
}
"""Columns that hold a field of the event as it is."""
_RENAMED = {"sealed_content": "content", "session_limit": "limit"}
_NOTHING: tuple[object, ...] = (None, {})
_LEFT_OUT = {"command_digest"}  # keyed, and so of no use to a reader
_TIMES = {"expires_at", "due_at", "replaced_until"}
_IDS = {"replaced_by", "reservation_id", "source_session_id"}


def table_of(partition: int, events: Sequence[tuple[int, Event]]) -> pa.Table:
    """The rows of (position, event) pairs, grouped by event type. At least one."""
    by_type: dict[type[Event], list[tuple[int, Event]]] = {}
    for pair in events:
        by_type.setdefault(type(pair[1]), []).append(pair)
    tables = [_table_of_type(partition, event_type, pairs) for event_type, pairs in by_type.items()]
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="default")


def _table_of_type(partition: int, event_type: type[Event], pairs: Sequence[tuple[int, Event]]) -> pa.Table:
    count = len(pairs)
    found = [event for _, event in pairs]
    columns: dict[str, pa.Array] = {
        "partition": pa.array([partition] * count, pa.int16()),
        "position": pa.array([position for position, _ in pairs], pa.int64()),
        "event_type": pa.array([event_type.__name__] * count, pa.string()),
    }
    for take, column in _COLUMNS[event_type]:
        values = list(map(take, found))
        kind = _TYPES[column]
        if kind is UUID_TYPE:
            columns[column] = _uuids(values)
        elif values.count(None) < count:  # else the database fills in NULL by itself
            columns[column] = pa.array(values, kind)
    same = "session_id" if issubclass(event_type, SessionEvent) else "agent_id"
    is_same = issubclass(event_type, SessionEvent | AgentEvent)
    columns["stream"] = columns[same] if is_same else _uuids([event.originator_id for event in found])
    recorded = columns["recorded_at"]
    columns["happened_at"] = _either(columns["occurred_at"], recorded) if "occurred_at" in columns else recorded
    details = _details(event_type, found)
    if details is not None:
        columns["details"] = details
    return pa.table(columns)


def _either(first: pa.Array, second: pa.Array) -> pa.Array:
    if first.null_count == len(first):
        return second
    import pyarrow.compute as pc

    return pc.coalesce(first, second)


def _uuids(values: list[bytes | None]) -> pa.Array:
    missing = values.count(None)
    if missing == len(values):
        return pa.nulls(missing, UUID_TYPE)
    if missing:
        storage = pa.array(values, pa.binary(16))
    else:  # a third of the time
        joined = pa.py_buffer(b"".join(cast("list[bytes]", values)))
        storage = pa.Array.from_buffers(pa.binary(16), len(values), [None, joined])
    return pa.ExtensionArray.from_storage(UUID_TYPE, storage)


def _details(event_type: type[Event], events: Sequence[Event]) -> pa.Array | None:
    """The column `details`; None where nothing stands in it."""
    present: list[tuple[str, Callable[[Any], object], list[Any]]] = []
    for field, take, shown in _FURTHER[event_type]:
        values = list(map(take, events))
        if any(value not in _NOTHING for value in values):
            present.append((field, shown, values))
    if not present:
        return None
    rows: list[str | None] = []
    for place in range(len(events)):
        found = {field: shown(value) for field, shown, values in present if (value := values[place]) not in _NOTHING}
        rows.append(_json(found) if found else None)
    return pa.array(rows, pa.string())


def time_text(microseconds: int) -> str:
    """ISO 8601, UTC; what lies beyond the calendar is its last instant."""
    try:
        return (EPOCH + timedelta(microseconds=microseconds)).isoformat()
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC).isoformat()


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _hex(value: bytes) -> str:
    return value.hex()


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, QuotaDefault):
        return {"resource": value.resource, "limit": str(value.limit), "period_ms": value.period_ms}
    return str(value) if isinstance(value, Decimal) else value


def _shown(name: str, annotation: str) -> Callable[[Any], object]:
    if name.startswith("sealed_"):
        return _base64
    if name in _IDS:
        return format_id
    if name in _TIMES:
        return time_text
    return _hex if annotation.startswith("bytes") else _plain


def _fields(event_type: type[Event]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(event_type) if field.name not in _LEFT_OUT]


_COLUMNS: dict[type[Event], tuple[tuple[Callable[[Event], Any], str], ...]] = {
    event_type: tuple(
        (attrgetter(field.name), column)
        for field in _fields(event_type)
        if (column := _RENAMED.get(field.name, field.name)) in _TYPES
    )
    for event_type in EVENT_TYPES
}
"""(what gives the field, column) of each event type."""
_FURTHER: dict[type[Event], tuple[tuple[str, Callable[[Event], Any], Callable[[Any], object]], ...]] = {
    event_type: tuple(
        (field.name, attrgetter(field.name), _shown(field.name, str(field.type)))
        for field in _fields(event_type)
        if _RENAMED.get(field.name, field.name) not in _TYPES
    )
    for event_type in EVENT_TYPES
}
"""(field, what gives it, how it is shown in `details`) of each event type."""
