"""An event as JSON for people and exports: what `tail` prints."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any

from session_ledger.domain.events import EVENT_BY_TOPIC, TOPIC_PREFIX, Event
from session_ledger.domain.ids import format_id
from session_ledger.schemas.library import read_current
from session_ledger.schemas.shape import Shape, record_shape

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def present(event: Event) -> dict[str, Json]:
    """A JSON-ready dict: "type" (the event type's name) first, then every field, in the schema's order.

    Ids are UUID text, other fixed bytes (digests, fingerprints) hexadecimal, sealed bytes base64, times ISO 8601 in
    UTC with six decimals and "Z" (a time that no calendar of Python holds stays a number of microseconds), decimals
    plain decimal text without trailing zeros.
    """
    shown: dict[str, Json] = {"type": type(event).__name__}
    for name, show in _fields(type(event).__name__):
        shown[name] = show(getattr(event, name))
    return shown


@cache
def _fields(event_type_name: str) -> list[tuple[str, Callable[[Any], Json]]]:
    return _record(record_shape(json.loads(read_current(EVENT_BY_TOPIC[TOPIC_PREFIX + event_type_name]))))


def _record(shape: Shape) -> list[tuple[str, Callable[[Any], Json]]]:
    return [(name, _shower(field)) for name, field in shape.fields]


def _shower(shape: Shape) -> Callable[[Any], Json]:
    show: Callable[[Any], Json]
    match shape.kind:
        case "fixed":
            show = format_id if shape.uuid else bytes.hex
        case "bytes":
            show = _base64
        case "time":
            show = _time
        case "decimal":
            show = _decimal
        case "map":
            show = dict
        case "array":
            assert shape.item is not None
            item = _shower(shape.item)

            def show(values: tuple[object, ...]) -> Json:
                return [item(value) for value in values]

        case "record":
            parts = _record(shape)

            def show(value: object) -> Json:
                return {name: part(getattr(value, name)) for name, part in parts}

        case _:
            show = _as_it_is
    if shape.nullable:
        return lambda value: None if value is None else show(value)
    return show


def _as_it_is(value: Json) -> Json:
    return value


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _time(value: int) -> Json:
    try:
        moment = _EPOCH + timedelta(microseconds=value)
    except OverflowError:
        return value
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _decimal(value: Decimal) -> str:
    return format(value.normalize(), "f") if value else "0"
